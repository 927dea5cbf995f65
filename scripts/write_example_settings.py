"""Write configs/invokeai.example.yaml and the table of docs/limits.md from the settings' own declarations."""

from pathlib import Path

from invokeclone.kit.config.limits import table
from invokeclone.kit.config.settings_file import example

ROOT = Path(__file__).parent.parent

if __name__ == "__main__":
    (ROOT / "configs" / "invokeai.example.yaml").write_text(example(), encoding="utf-8")
    page = ROOT / "docs" / "limits.md"
    text = page.read_text(encoding="utf-8").split("| setting |")[0]
    page.write_text(text + table(), encoding="utf-8")
