"""Load: from a folder of checkpoints to a set that every page works on."""

from dcmerge.ui.load_draft import attachments, draft_of
from dcmerge.ui.load_hub import hub_set
from dcmerge.ui.load_open import examined, open_and_remember, remembered_sets
from dcmerge.ui.load_search import folder_choice, found_set, from_hub
from dcmerge.ui.shell import start_page_without_set

start_page_without_set(
    "Load",
    "Load your own models. Choose a folder or name models of the Hugging Face hub, check them, name the tasks, attach "
    "images if you have some, and open the set. Task-vector folders, Hugging Face models, LoRA adapters and open_clip files are "
    "recognised. Nothing is executed or copied, and nothing is downloaded unless you ask for it.",
)

remembered_sets()
if from_hub():
    found = hub_set()
else:
    folder = folder_choice()
    found = found_set(folder) if folder else None
if found:
    draft = draft_of(found)
    draft = attachments(draft, found)
    draft = examined(draft)
    open_and_remember(draft)
