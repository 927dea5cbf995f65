"""Write configs/invokeai.example.yaml from the settings' own declarations."""

from pathlib import Path

from invokeclone.kit.settings_file import example

if __name__ == "__main__":
    (Path(__file__).parent.parent / "configs" / "invokeai.example.yaml").write_text(example(), encoding="utf-8")
