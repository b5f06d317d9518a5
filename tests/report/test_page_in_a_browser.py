"""The report page in a real headless Chromium: it loads in silence, plays in step, and candidates open."""

import re

import numpy as np
from grown_tree import EVIL, grown

from prunus import Score
from prunus.report.page import Clip, write_page

WAIT = "const done = arguments[arguments.length - 1], all = [...document.querySelectorAll('video')];"
IN_STEP = (
    WAIT
    + """
const look = () => all.every(v => v.currentTime > 0.3 && v.readyState >= 2)
  ? done([all.map(v => v.currentTime), document.getElementById('frame').textContent]) : setTimeout(look, 20);
look();"""
)
PIXEL = (
    WAIT
    + """
const video = all[0], canvas = document.createElement('canvas');
canvas.width = video.videoWidth; canvas.height = video.videoHeight;
canvas.getContext('2d').drawImage(video, 0, 0);
done([...canvas.getContext('2d').getImageData(32, 32, 1, 1).data]);"""
)


SHOWN = """
arguments[0].scrollIntoView({block: "center"});
const done = arguments[1];
requestAnimationFrame(() => requestAnimationFrame(() => done()));"""


def test_in_chromium(browser, tmp_path):
    """It loads without a word on the console, both videos play in step, a candidate opens and Escape closes it."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    red = np.full((16, 32, 32, 3), (230, 51, 51), np.uint8)
    file = tmp_path / "report.html"
    clips = [Clip("plain", red, {"judge": 0.4, "reward": 0.3}), Clip("chosen", red, {"judge": 0.5, "reward": 0.4})]
    write_page(file, grown(EVIL, EVIL, chunks=7), clips=clips, judge=lambda node: Score(0.5))
    for width in (1280, 400):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == 400}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(file.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.title").startswith("</script>")
    assert browser.find_element(By.TAG_NAME, "h1").text == EVIL

    (plain, chosen), frame = browser.execute_async_script(IN_STEP)
    assert abs(plain - chosen) < 1 / 8 and re.fullmatch(r"frame \d+ of 16", frame)
    browser.find_element(By.ID, "play").click()
    assert browser.execute_script("return [...document.querySelectorAll('video')].every(v => v.paused)")
    shown = browser.execute_async_script(PIXEL)
    assert np.abs(np.array(shown[:3]) - (230, 51, 51)).max() <= 8

    card = browser.find_element(By.ID, "hover")
    assert not card.is_displayed()
    pruned = browser.find_element(By.CSS_SELECTOR, "[data-node='3']")
    browser.execute_async_script(SHOWN, pruned)  # scrolling hides the card
    ActionChains(browser).move_to_element(pruned).perform()
    assert card.is_displayed() and "Chunk 1, candidate 3, pruned" in card.text and "0.300" in card.text
    assert len(card.find_elements(By.CLASS_NAME, "cell")) == 3  # its frames
    box = card.rect
    assert box["x"] >= 0 and box["x"] + box["width"] <= width

    browser.find_element(By.CSS_SELECTOR, "[data-node='1']").send_keys(Keys.ENTER)
    dialog = browser.find_element(By.ID, "detail")
    assert dialog.is_displayed() and "Chunk 1, candidate 1" in dialog.text and EVIL in dialog.text
    dialog.find_element(By.XPATH, ".//button[.='Child 5']").click()
    assert "Chunk 2, candidate 5" in dialog.text
    dialog.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert browser.execute_script("return document.activeElement.dataset.node") == "1"
    assert browser.get_log("browser") == []


def test_reduced_motion_waits_for_a_click(browser, tmp_path):
    file = tmp_path / "report.html"
    write_page(file, grown(), clips=[Clip("chosen", np.zeros((8, 32, 32, 3), np.uint8))])
    calm = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", calm)
    browser.get(file.as_uri())
    assert browser.execute_script("return document.querySelector('video').paused")
    assert browser.execute_script("return document.getElementById('play').textContent") == "Play"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
