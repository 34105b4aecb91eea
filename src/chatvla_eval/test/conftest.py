# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of pages: one browser for all."""

import shutil

import pytest

from .browser import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if shutil.which("chromedriver") is None:
        pytest.skip("no headless browser: install chromium and chromium-driver (apt)")
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()
