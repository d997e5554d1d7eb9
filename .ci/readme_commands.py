"""Run the README's own commands: its ```sh blocks in order, then its ```python blocks.

A block that begins with `# needs: PATH` is left out, and said to be, where PATH does not exist.
"""

import re
import subprocess
import sys
import time
from pathlib import Path


def shell_blocks(text: str) -> list[str]:
    """The bodies of all ```sh blocks, in order."""
    return re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def python_blocks(text: str) -> list[str]:
    """The bodies of all ```python blocks, in order."""
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def missing_need(block: str) -> str | None:
    """The path that the block's first line asks for, where it does not exist."""
    match = re.match(r"# needs: (\S+)", block)
    return match.group(1) if match and not Path(match.group(1)).exists() else None


def main(readme: str) -> int:
    """Run each block and stop at the first that fails."""
    text = Path(readme).read_text(encoding="utf-8")
    blocks = shell_blocks(text) + [
        f"{sys.executable} - <<'EOF'\n{block}EOF\n" for block in python_blocks(text)
    ]
    if not blocks:
        print(f"error: {readme} holds no ```sh block")
        return 1
    for number, block in enumerate(blocks, start=1):
        if missing := missing_need(block):
            print(f"README block {number}: left out, {missing} is not here", flush=True)
            continue
        print(f"README block {number}:\n{block}", flush=True)
        start_s = time.monotonic()
        result = subprocess.run(["bash", "-euo", "pipefail", "-c", block], check=False)
        print(
            f"README block {number}: exit {result.returncode}, {time.monotonic() - start_s:.0f} s",
            flush=True,
        )
        if result.returncode:
            return result.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
