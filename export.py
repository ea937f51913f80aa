"""Export a finished run: python export.py run=outputs/... format=onnx [quantize=int8] [push_to_hub=owner/name]."""

from omegaconf import DictConfig

from thaw.cli import command
from thaw.rules import EXPORT_RULES


@command("export", EXPORT_RULES)
def main(config: DictConfig) -> None:
    """Write the model in another form, check it against torch, publish it."""
    from thaw.inference.export import export

    export(config)


if __name__ == "__main__":
    main()
