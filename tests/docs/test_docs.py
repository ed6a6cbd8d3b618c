"""The docs keep up with the code: every hook, key and algorithm is there, every link leads somewhere, the README tells the truth."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnc
import nnc.testing
from nnc import hookspecs
from nnc_schemas import PruneSpec, Selector

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("hook", sorted(name for name in vars(hookspecs) if name.startswith("nnc_")))
def test_the_plugin_guide_explains_every_hook(hook):
    assert hook in (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", sorted(PruneSpec.model_fields))
def test_the_config_list_reference_has_every_key(key):
    assert f"`{key}`" in (ROOT / "docs" / "config_list.md").read_text(encoding="utf-8")


def test_the_readme_lists_the_built_in_algorithms():
    builtin = {found.name for found in nnc.algorithms() if found.plugin == "pruning"}

    assert builtin == set(re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_example_prints_what_the_readme_says():
    code, printed = blocks(README, "python")[0], blocks(README, "text")[0]

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == printed.strip()


@pytest.mark.parametrize("page", ["README.md", "docs/plugins.md"])
def test_the_pruner_that_the_docs_show_keeps_the_contract_on_both_frameworks(page):
    code = next(block for block in blocks((ROOT / page).read_text(encoding="utf-8"), "python") if "Pruner):" in block)
    scope = {"__name__": "shown"}
    exec(code, scope)

    nnc.testing.check_pruner(scope["MaxPruner"])


@pytest.mark.parametrize("name", sorted(found.name for found in nnc.algorithms() if found.plugin == "distillation"))
def test_the_page_on_distillation_has_every_method_and_its_keys(name):
    page = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")
    cls = next(found.cls for found in nnc.algorithms() if found.name == name)

    assert f"| `{name}` |" in page
    assert [key for key in cls.spec.model_fields if key not in Selector.model_fields and f"`{key}`" not in page] == []
