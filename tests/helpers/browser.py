"""Chromium without a screen, in which tests open pages."""

import contextlib
import shutil

import pytest


@contextlib.contextmanager
def open_chromium(folder):
    """Start it, with a profile of its own in `folder`; skip the test where there is none.

    Gives `open_page(path, width=1440, dark=False)`, which loads a file and gives back the driver,
    whose logs 'browser' (the console) and 'performance' (requests) begin with this page.
    """
    chromium, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if not (chromium and driver):
        pytest.skip('needs Chromium and its driver: apt-get install chromium chromium-driver')
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.wait import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability('goog:loggingPrefs', dict(browser='ALL', performance='ALL'))
    quiet = ('quic', 'background-networking', 'component-update', 'sync', 'gpu')
    for flag in ('headless', 'no-sandbox', 'no-first-run', *(f'disable-{name}' for name in quiet)):
        options.add_argument(f'--{flag}')
    options.add_argument(f'--user-data-dir={folder}')
    chrome = webdriver.Chrome(options=options, service=Service(driver))

    def open_page(page, width=1440, dark=False):
        chrome.execute_cdp_cmd(
            'Emulation.setDeviceMetricsOverride',
            dict(width=width, height=900, deviceScaleFactor=1, mobile=width < 600),
        )
        scheme = dict(name='prefers-color-scheme', value='dark' if dark else 'light')
        chrome.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[scheme]))
        for kind in ('browser', 'performance'):
            chrome.get_log(kind)
        chrome.get(page.as_uri())
        # Chromium's driver at times returns from `get` with half of a page that is loaded again.
        WebDriverWait(chrome, 60).until(
            lambda chrome: chrome.execute_script('return document.readyState') == 'complete'
        )
        return chrome

    try:
        yield open_page
    finally:
        chrome.quit()
