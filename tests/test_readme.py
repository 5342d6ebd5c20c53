"""The README says what is: settings, commands, links, and the library's example."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from worker.cli import render_settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_settings_are_those_of_the_code():
    table = README.split("<!-- settings -->\n")[1].split("\n<!-- /settings -->")[0]
    assert table == render_settings(), "paste the output of `stacknorm-worker settings --markdown`"


def test_every_link_leads_to_a_file():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_first_screen_is_short():
    first_screen = README.split("## Read the alerts")[0]
    prose = re.sub(r"```console\n.*?```", "", first_screen, flags=re.DOTALL)
    assert len(prose.splitlines()) <= 40


@pytest.mark.parametrize("command", sorted(set(re.findall(r"\$ (stacknorm(?:-worker)? [a-z]+)", README))))
def test_every_command_exists_and_explains_itself(command):
    program, name = command.split()
    module = "worker" if program == "stacknorm-worker" else "stacknorm"
    done = subprocess.run([sys.executable, "-m", module, name, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_library_example_runs():
    (example,) = (code for code in CODE if 'Engine.load("finance")' in code)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "negative"
