import pytest

from flyball.errors import ConfigError
from flyball.model.scrapeconfigs import parse_scrape_config, parse_scrape_configs, to_document
from flyball.model.yaml_loader import load_all_yaml, load_yaml

DOCUMENT = """
global: {scrape_interval: 15s}
scrape_configs:
- job_name: good
  bearer_token: x
  params: {module: [x]}
  body_size_limit: 5MB
  tls_config: {ca_file: /x, insecure_skip_verify: true}
  relabel_configs:
  - {source_labels: [__meta_x], regex: (.+), target_label: y}
  - {action: labeldrop, regex: foo}
  - {action: HashMod, modulus: 3, target_label: q, source_labels: [a]}
  kubernetes_sd_configs:
  - {role: pod, namespaces: {names: [a]}, selectors: [{role: pod, label: a=b}]}
  static_configs: [{targets: ['a:80'], labels: {x: y, n: 1}}]
- {job_name: typo, scrap_interval: 1s}
- {job_name: slow, scrape_timeout: 20s}
- {job_name: action, relabel_configs: [{action: nope}]}
- {job_name: regex, relabel_configs: [{regex: '(', target_label: x}]}
- {job_name: good}
"""


def test_one_bad_job_does_not_refuse_the_others() -> None:
    configs, errors = parse_scrape_configs(DOCUMENT)
    assert [config.job_name for config in configs] == ["good"]
    text = [str(error) for error in errors]
    assert text[0] == 'job "typo": unknown field "scrap_interval"; remove it or check its spelling'
    for error, expected in zip(text[1:], ["scrape_timeout", '"nope"', "does not compile", "used twice"], strict=True):
        assert expected in error


def test_round_trip() -> None:
    (config,), _ = parse_scrape_configs(DOCUMENT)
    assert config.body_size_limit_bytes == 5 * 1024 * 1024
    assert config.scrape_interval_ms == 15_000
    assert config.http.authorization is not None and config.http.authorization.credentials == "x"
    assert parse_scrape_config(to_document(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x", "alias"),
        ("a: 1\na: 2", "line 2"),
        ("a: [1,", "line"),
        ("!!python/object:x {}", "tag"),
        ("<<: {a: 1}", "merge"),
        ("a: 1\n---\nb: 2", "2 documents"),
    ],
)
def test_yaml_refuses(text, message) -> None:
    with pytest.raises(ConfigError, match=message):
        load_yaml(text)


def test_yaml_scalars_are_those_of_go() -> None:
    assert load_yaml("{a: 1e3, b: 22:30, c: 2026-01-01, d: 0644, e: '5', f: ~, 80: 0o17, g: 1.2.3.4}") == {
        "a": 1000.0, "b": "22:30", "c": "2026-01-01", "d": 420, "e": "5", "f": None, "80": 15, "g": "1.2.3.4",
    }  # fmt: skip
    assert load_all_yaml("---\na: 1\n---\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]


def test_a_url_is_a_target_only_where_relabelling_may_make_an_address_of_it() -> None:
    job = "{job_name: a, static_configs: [{targets: ['http://x/']}]"
    rules = "relabel_configs: [{source_labels: [__address__], target_label: __param_target}]"
    jobs, errors = parse_scrape_configs(f"scrape_configs: [{job}, {rules}}}]")
    assert not errors and jobs[0].static_configs[0].targets == ("http://x/",)
    _, errors = parse_scrape_configs(f"scrape_configs: [{job}}}]")
    assert 'static_configs[0]: targets: "http://x/" is not a host:port' in str(errors[0])


def test_limits_are_never_off() -> None:
    (job,), errors = parse_scrape_configs(
        "global: {label_limit: 30}\nscrape_configs: [{job_name: a, sample_limit: 0}]\n"
    )
    assert errors == []
    assert (job.sample_limit, job.label_limit, job.target_limit) == (1_000_000, 30, 50_000)
    assert (job.label_name_length_limit, job.label_value_length_limit) == (4_096, 65_536)
