# SPDX-License-Identifier: Apache-2.0
"""Robot episodes and image-text samples, on disk and as training samples."""
