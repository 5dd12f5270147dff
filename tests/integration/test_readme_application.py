"""The application in README runs as printed, against a running pair."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.support.testbed import CONTEXT, running_pair
from tests.support.tiny_models import save_tiny_model

README = Path(__file__).parents[2] / "README.md"


def application() -> str:
    found = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, "README shows an application"
    return found[1]


@pytest.mark.timeout(60)
async def test_the_application_in_readme_prints_an_answer(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(CONTEXT, encoding="utf-8")
    model = save_tiny_model(tmp_path / "model")
    async with running_pair(model) as bed:
        code = application().replace("127.0.0.1:7070", bed.edge_address)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert output.decode(errors="replace")


def test_the_application_is_about_ten_lines() -> None:
    statements = [line for line in application().splitlines() if line.strip()]
    assert len(statements) <= 14
