"""Everyday knowledge in sentences of our own: a start, an ending that fits, one that does not."""

import random

SENTENCES = (
    ("When it rains, I take an", "umbrella", "oven"),
    ("The baby was tired, so she went to", "sleep", "work"),
    ("I was hungry, so I ate a", "sandwich", "window"),
    ("He was thirsty and drank a glass of", "water", "sand"),
    ("In winter it is very", "cold", "purple"),
    ("My dog likes to chase the", "ball", "sky"),
    ("She was late because she missed the", "bus", "moon"),
    ("We went to the beach to swim in the", "sea", "car"),
    ("The cat caught a", "mouse", "train"),
    ("I lost my keys and could not open the", "door", "soup"),
    ("He failed the test because he did not", "study", "sneeze"),
    ("On my birthday I got a big", "cake", "storm"),
    ("The teacher helped me with my", "homework", "elephant"),
    ("I broke my leg and went to the", "hospital", "bakery"),
    ("They got married last", "summer", "spoon"),
    ("She plays the piano and loves", "music", "dentists"),
    ("My car would not start, so I called a", "mechanic", "pirate"),
    ("The movie was so sad that I", "cried", "flew"),
    ("It was so funny that we could not stop", "laughing", "sleeping"),
    ("I saved some money to buy a new", "phone", "yesterday"),
    ("He was afraid of the dark, so he turned on the", "light", "bread"),
    ("After the long hike my feet were", "sore", "square"),
    ("The garden is full of", "flowers", "sharks"),
    ("I was nervous before the job", "interview", "pillow"),
    ("My grandmother bakes the best", "cookies", "clouds"),
    ("The fire burned down the old", "house", "river"),
    ("We planted a tree in the", "yard", "fridge"),
    ("I could not sleep because of the", "noise", "chair"),
    ("She was proud of her son when he", "graduated", "yawned"),
    ("My brother broke my toy, and I was", "angry", "wooden"),
    ("I miss my old friends from", "school", "gravity"),
    ("He was lonely after his wife", "died", "sang"),
    ("We went to the store to buy some", "milk", "thunder"),
    ("The plane was delayed at the", "airport", "kitchen"),
    ("I forgot my wallet at", "home", "noon"),
    ("The doctor gave me some", "medicine", "gasoline"),
    ("I was surprised by the party that my friends", "planned", "melted"),
    ("My team won the", "game", "weather"),
    ("He asked her to marry him and gave her a", "ring", "brick"),
    ("The snow was so deep that school was", "closed", "hungry"),
)


def load(**_ignored):
    """The split `test`: rows of start, two endings in a fixed random order, and the label."""
    from datasets import Dataset, DatasetDict

    draw = random.Random(7)
    rows = []
    for start, right, wrong in SENTENCES:
        endings = [right, wrong] if draw.random() < 0.5 else [wrong, right]
        rows.append({"start": start, "endings": endings, "label": endings.index(right)})
    return DatasetDict({"test": Dataset.from_list(rows)})
