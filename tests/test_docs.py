"""The documentation says what the code does: names, numbers and commands are compared, not trusted."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import livechannels
from livechannels import conf
from livechannels.engines import options

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PACKAGE = ROOT / "livechannels"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

# The block that Grafana's documentation of Live HA gives for Sentinel behind HAProxy.
SEED = r"""
listen redis
  server redis-01 127.0.0.1:6380 check port 6380 check inter 2s weight 1 inter 2s downinter 5s rise 10 fall 2 on-marked-down shutdown-sessions on-marked-up shutdown-backup-sessions
  server redis-02 127.0.0.1:6381 check port 6381 check inter 2s weight 1 inter 2s downinter 5s rise 10 fall 2 backup
  bind *:6379
  mode tcp
  option tcpka
  option tcplog
  option tcp-check
  tcp-check send PING\r\n
  tcp-check expect string +PONG
  tcp-check send info\ replication\r\n
  tcp-check expect string role:master
  tcp-check send QUIT\r\n
  tcp-check expect string +OK
  balance roundrobin
"""  # noqa: E501


def read(name: str) -> str:
    return (ROOT / name).read_text()


def sources(*patterns: str) -> str:
    return "\n".join(path.read_text() for pattern in patterns for path in sorted(PACKAGE.glob(pattern)))


def first_column(text: str) -> set[str]:
    """The code spans in the first cells of all tables."""
    cells = re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of its level or a higher one."""
    level = heading.split(" ")[0]
    rest = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def without_addresses(block: str) -> list[str]:
    """The words of an HAProxy block, addresses and ports taken out."""
    block = re.sub(r"(\d+\.\d+\.\d+\.\d+|\*):\d+|(?<=port )\d+", "…", block)
    return [line.strip() for line in block.strip().splitlines()]


def test_haproxy_block_is_the_seeds():
    ours = read("docs/howto/haproxy.cfg")
    assert without_addresses(ours[ours.index("listen redis") :]) == without_addresses(SEED)


def test_readme_commands_are_make_targets():
    readme = read("README.md")
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)", readme, re.MULTILINE))
    assert named == {"demo", "test"}
    for page in PAGES:
        assert set(re.findall(r"^make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets, page


def test_ci_runs_the_readmes_test_command():
    commands = [line.split(" || ")[0] for line in read(".ci/run").splitlines() if line.startswith("make ")]
    assert commands == ["make test", "make test-all"]


def test_readme_is_short_and_shows_a_picture_first():
    lines = read("README.md").splitlines()
    assert len(lines) <= 150
    picture = re.fullmatch(r"!\[.+\]\((.+)\)", lines[0])
    assert picture
    assert (ROOT / picture[1]).read_bytes().startswith(b"\x89PNG")


def test_readmes_telegraf_configuration_is_the_guides():
    blocks = re.findall(r"```toml\n(.*?)```", read("README.md") + read("docs/howto/telegraf.md"), re.DOTALL)
    parsed = [tomllib.loads(block) for block in blocks]
    outputs = [output for block in parsed for output in block["outputs"].get("http", [])]
    assert len(outputs) == 2
    assert {**outputs[0], "headers": {}} == {**outputs[1], "headers": {}}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def test_every_check_id_is_documented():
    code = sources("**/*.py")
    known = set(re.findall(r"livechannels\.[EW]\d{3}", code))
    known |= {f"livechannels.{number}" for number in re.findall(r'"([EW]\d{3})"', code)}
    documented = re.findall(r"^\| `(livechannels\.[EW]\d{3})` \|", read("docs/reference/checks.md"), re.MULTILINE)
    assert sorted(documented) == sorted(known)


def test_every_option_of_config_is_documented():
    text = section(read("docs/reference/settings.md"), '## `CHANNEL_LAYERS[alias]["CONFIG"]`')
    options_table = text.split("### URLs")[0]
    assert first_column(options_table) == set(options.KNOWN)


def test_every_setting_is_documented():
    text = section(read("docs/reference/settings.md"), "## `LIVECHANNELS`").split("### ")[0]
    assert first_column(text) == set(conf.KEYS)


def test_every_limit_is_documented_with_its_default():
    text = section(read("docs/reference/settings.md"), "### `LIMITS`")
    documented = {name: float(value) for name, value in re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE)}
    assert documented == dict(conf.DEFAULT_LIMITS)


def test_every_metric_is_documented():
    made = set(re.findall(r'metrics\.(?:counter|gauge)\(\s*"(\w+)"', sources("**/*.py")))
    assert first_column(read("docs/reference/metrics.md")) == made


def test_every_command_is_documented():
    commands = {path.stem for path in (PACKAGE / "management" / "commands").glob("livechannels_*.py")}
    documented = {name.split(" ")[0] for name in first_column(read("docs/reference/commands.md"))}
    assert documented == commands


def test_every_public_name_is_documented():
    text = section(read("docs/reference/public-api.md"), "## `livechannels`")
    documented = {re.match(r"\w+", name)[0] for name in first_column(text)}
    assert documented == set(livechannels.__all__)


def test_the_drawing_names_every_module():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    modules |= {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    text = read("docs/explanation/architecture.md")
    drawing = re.search(r"```text\n(.*?)```", text, re.DOTALL)[1]
    drawn = set(re.findall(r"[a-z_]+", re.sub(r"\(.*?\)|—.*", "", drawing)))
    assert modules <= drawn, modules - drawn
    assert drawn <= modules | {"base", "memory", "redis", "lua"}, "boxes are module names"
