"""What ran where: the device, date, commit and command that every result carries."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def provenance(**more: Any) -> dict[str, Any]:
    """Device, date, commit, command and load at this moment.

    Args:
        **more: What else a result should carry; replaces what has the same name.
    """
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    options = without_out(sys.argv[1:])
    return {
        "device": f"{processor_name()}, {os.cpu_count()} cores",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *options]),
        "load_average_before": round(os.getloadavg()[0], 2),
        **more,
    }


def without_out(words: list[str]) -> list[str]:
    """A command's words less `--out FILE`: where a result went does not matter."""
    before = ["", *words]
    return [
        word
        for last, word in zip(before, words, strict=False)
        if "--out" not in (last, word) and not word.startswith("--out=")
    ]


def processor_name() -> str:
    """The CPU's own name where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_result(result: dict[str, Any], out: Path | None) -> None:
    """Print a result as JSON, and write it where a file is named."""
    text = json.dumps(result, indent=1)
    print(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
