from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
MANIFESTS = sorted(EXAMPLES.rglob("*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_manifest_names_its_kind(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert documents
    for document in documents:
        assert document["apiVersion"]
        assert document["kind"]
        assert document["metadata"]["name"]


def test_the_config_map_of_the_webapp_carries_main_py_word_for_word() -> None:
    documents = yaml.safe_load_all((EXAMPLES / "webapp/manifests/00-app.yaml").read_text())
    script = next(d for d in documents if d["kind"] == "ConfigMap")["data"]["main.py"]
    assert script == (EXAMPLES / "webapp/main.py").read_text()


def test_the_script_of_the_scrypt_example_compiles() -> None:
    documents = yaml.safe_load_all((EXAMPLES / "scrypt/scrypt.yaml").read_text())
    script = next(d for d in documents if d["kind"] == "ConfigMap")["data"]["server.py"]
    compile(script, "server.py", "exec")
