"""Run as a script, it pickles modules of a package ``src`` that exists in this process alone, and their state dicts.

``python maker.py FOLDER``: the classes are those of the old Task Arithmetic (an encoder around open_clip's CLIP with its
torchvision transforms, a linear head), with every kind of parameter and buffer that a state dict treats differently.
"""

import pickle
import sys
import types
import warnings
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms


def encoder() -> nn.Module:
    class ImageEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            vision = {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
            text = {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
            self.model = open_clip.CLIP(8, vision, text, quick_gelu=True)
            del self.model.transformer
            self.val_preprocess = transforms.Compose(
                [
                    transforms.Resize(16, interpolation=transforms.InterpolationMode.BICUBIC),
                    transforms.ToTensor(),
                    transforms.Normalize((0.5,) * 3, (0.5,) * 3),
                ]
            )
            self.cache_dir, self.device = Path("/cache"), torch.device("cpu")
            self.extra = nn.ModuleDict({"norm": nn.BatchNorm1d(4), "none": nn.Identity(), "small": nn.Linear(3, 2).half()})
            self.extra["tied"] = nn.Linear(3, 2, bias=False)
            self.extra["tied"].weight = self.extra["small"].weight
            self.register_buffer("attn_mask", torch.full((4, 4), float("-inf")).triu(1))
            self.register_buffer("not_saved", torch.ones(3), persistent=False)
            self.register_buffer("empty", torch.zeros(0, 3))
            self.register_buffer("view", torch.arange(12.0).reshape(3, 4).T[1:])
            self.register_buffer("none", None)
            self.named = nn.Parameter(torch.randn(2, 2).bfloat16())
            self.named.note = "a parameter with an attribute"
            self.not_registered = torch.ones(5)

    return placed(ImageEncoder)


def placed(kind: type) -> nn.Module:
    """One object of the class, which then lies in the module src.modeling."""
    modules = {name: sys.modules.setdefault(name, types.ModuleType(name)) for name in ("src", "src.modeling")}
    kind.__module__, kind.__qualname__ = "src.modeling", kind.__name__
    setattr(modules["src.modeling"], kind.__name__, kind)
    return kind()


def head() -> nn.Module:
    class ClassificationHead(nn.Linear):
        def __init__(self) -> None:
            super().__init__(8, 5)
            self.normalize = True

    return placed(ClassificationHead)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    for name, module in (("encoder", encoder()), ("head", head())):
        save_file({key: value.clone().contiguous() for key, value in module.state_dict().items()}, folder / f"{name}.safetensors")
        torch.save(module, folder / f"{name}_zip.pt")
        torch.save(module, folder / f"{name}_legacy.pt", _use_new_zipfile_serialization=False)
        for protocol in (0, 2, 4):
            with open(folder / f"{name}_plain{protocol}.pt", "wb") as file:
                pickle.dump(module, file, protocol=protocol)
        torch.save({"epoch": 3, "model": module, "args": transforms.ToTensor()}, folder / f"{name}_nested.pt")
