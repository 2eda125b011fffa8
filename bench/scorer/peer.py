"""scikit-learn's isolation forest, one core: answers a line on standard input with a line on standard output.

load PATH ROWS_TRAIN ROWS_TEST WIDTH   both sets as little-endian 32-bit floats, one after the other
fit SEED                               seconds of processor time
time ROWS                              seconds of processor time to score the first rows of the test set
scores PATH                            scores of the whole test set, higher is more unusual, written as floats
"""

import sys
import time

import numpy as np
import sklearn
from sklearn.ensemble import IsolationForest


def main():
    print("ready", sklearn.__version__, flush=True)
    train = test = forest = None
    for line in sys.stdin:
        verb, *rest = line.rstrip("\n").split("\t")
        answer = "ok"
        if verb == "load":
            path, rows_train, rows_test, width = rest[0], int(rest[1]), int(rest[2]), int(rest[3])
            values = np.fromfile(path, dtype="<f4")
            train = values[: rows_train * width].reshape(rows_train, width)
            test = values[rows_train * width :].reshape(rows_test, width)
        elif verb == "fit":
            forest = IsolationForest(n_estimators=100, max_samples=256, random_state=int(rest[0]), n_jobs=1)
            before = time.process_time()
            forest.fit(train)
            answer = str(time.process_time() - before)
        elif verb == "time":
            rows = test[: int(rest[0])]
            before = time.process_time()
            forest.score_samples(rows)
            answer = str(time.process_time() - before)
        elif verb == "scores":
            (-forest.score_samples(test)).astype("<f4").tofile(rest[0])
        print(answer, flush=True)


main()
