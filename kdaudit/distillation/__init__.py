"""Training of the models that an audit compares: teacher, baseline, soft and hard students.

lab.py             `kdaudit distill`, top to bottom
opening.py         what all trainings share, loaded and checked; bases.py what each starts from
families.py        models and tokenizers from scratch; readers.py the tokenizers of a family
windows.py         the training windows on disk; order.py the order in which they are read
planting.py        canaries among them; own_tokens.py their text in a student's own tokens
plans.py           what is to be trained; members.py baselines and students, by name and seed

training.py        what all trainers share: transformers' Trainer on rows of token ids
taught.py          a trainer with a frozen teacher (teacher.py) beside the student
soft.py, hard.py   what a student learns of it
corpus.py          the text that the teacher generates for hard students
lora.py            students that are LoRA adapters
generation.py      generation settings of what is trained
processes.py       several processes that train one family

folders.py         folders of trained models, whole or absent
outcome.py         what came of it: perplexities, distill.json
audit_file.py      the audit.yaml that audits the family
model_card.py      a trained model's card
"""
