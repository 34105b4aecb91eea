# SPDX-License-Identifier: Apache-2.0
"""Tables and plots of the router: which experts understanding and robot inputs go to, before and after fine-tuning."""
