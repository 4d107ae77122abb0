"""What a report says of a run and of a dataset, beside the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from disbench.reports.entries import Entry
from disbench.reports.render.text import counted, plain
from disbench.reports.table import failures, ran_out


def dataset_facts(entry: Entry) -> str:
    """Of a run's dataset: title, samples, whole content hash, options."""
    facts = entry.description["dataset"].get("facts", {})
    options = facts.get("options", "")
    parts = [
        str(facts.get("title", "")),
        counted(entry.dataset_samples, "sample"),
        f"content hash {entry.content_hash}",
        f"options {_pairs(options) if isinstance(options, Mapping) else options}" if options else "",
    ]
    return plain("; ".join(filter(None, parts)))


def run_facts(entry: Entry) -> list[tuple[str, str]]:
    """Of a run, beside its command: heading and text of each fact, in one printable line."""
    description = entry.description
    method, card, result = description["method"], description["method"]["card"], description["result"]
    repeated = result.get("batches_repeated", {}).get("count", 0)
    weights = [f"{weight.get('file')}: SHA-256 {weight.get('sha256')}" for weight in card.get("weights", [])]
    facts = {
        "Method": f"{card.get('title', entry.method)}, {method['entry']}",
        "Source": f"SHA-256 {method['source_sha256']}" if method.get("source_sha256") else "",
        "Options": _pairs(method["options"]),
        "Citation": card.get("citation", ""),
        "Code": card.get("code", ""),
        "Licence": card.get("licence", ""),
        "Weights": "; ".join(weights),
        "Dataset": f"{entry.dataset}, {counted(entry.dataset_samples, 'sample')}, content hash {entry.content_hash}",
        "Protocol": ", ".join(f"{key} {value}" for key, value in entry.conditions.items()),
        "Threshold": f"{entry.threshold:g}",
        "Protocol of": entry.preset,
        "Stop": "" if entry.stop_at is None else f"at an IoU of {entry.stop_at:g}",
        "Result": f"{counted(entry.summary.samples, 'sample')}, {counted(entry.summary.clicks, 'click')}, "
        f"{result['wall_seconds']:.1f} s of wall time",
        "Failed": failures(entry),
        "Recorded clicks": ran_out(entry),
        "Batches": f"{repeated} failed and were asked again one by one" if repeated else "",
        "Versions": _pairs(description["versions"], " "),
        "Machine": f"{description['machine']['system']}, {entry.execution}",
    }
    return [(name, plain(text)) for name, text in facts.items() if text]


def _pairs(values: Mapping[str, Any], between: str = "=") -> str:
    return ", ".join(f"{key}{between}{value}" for key, value in values.items())
