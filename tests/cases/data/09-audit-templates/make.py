"""Write prompts made from one template: two share about 2/3 of their pieces."""

import csv
import json
import random
import string
import sys
from pathlib import Path

COLUMNS = "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie"
n, rnd = int(sys.argv[1]), random.Random(0)


def word():
    return "".join(rnd.choice(string.ascii_lowercase) for _ in range(rnd.randint(3, 9)))


words = [word() for _ in range(5000)]
fixed = " ".join(rnd.choice(words) for _ in range(136))
with Path("templates.csv").open("w", newline="") as file:
    w = csv.writer(file)
    w.writerow(COLUMNS.split(","))
    for i in range(n):
        own = " ".join(rnd.choice(words) for _ in range(35))
        texts = [f"{fixed} {own}"], [own[:40]], [own[5:30]]
        w.writerow([i, "m", "n", *map(json.dumps, texts), *(int(i % 3 == k) for k in range(3))])
