"""Questions of the self-test of Part 1, by number: each option with why it is right or wrong."""

from .exercise import Question

QUESTIONS = {
    1: Question(
        "One layer has 900 weights, of which 90 % are zero. The other has 100 weights, of which "
        "10 % are zero. How sparse is the model, over its weights?",
        {
            "a": (
                "50 %",
                "That is the mean of the two layers, as if they were equally large. Count zeros first, "
                "divide once at the end.",
            ),
            "b": (
                "90 %",
                "That is the larger layer alone. The ten zeros and ninety others of the small one count "
                "as well.",
            ),
            "c": (
                "82 %",
                "There are 810 zeros in the one and 10 in the other: 820 of 1,000. A large layer counts "
                "for more than a small one.",
            ),
            "d": (
                "18 %",
                "That is the share of weights kept. Sparsity is the share that is zero.",
            ),
        },
        right="c",
        lesson="01_what_is_pruning.ipynb",
    ),
    2: Question(
        "A mask sets 90 % of a network's weights to zero, and nothing else is changed. What shrinks?",
        {
            "a": (
                "The file, if it is packed with gzip",
                "A run of zeros is described briefly. Unpacked, the file has its full size again: "
                "something must make use of the zeros, or they save nothing.",
            ),
            "b": (
                "The time for a batch on an ordinary processor",
                "The processor multiplies by zero as by any other number. It takes a kernel that skips "
                "zeros, or a smaller matrix.",
            ),
            "c": (
                "The memory that the network takes while it runs",
                "In a dense tensor a zero takes four bytes like any other number.",
            ),
            "d": (
                "The MACs that are executed",
                "Shapes are what they were, so every product is still computed. Only an *ideal* count "
                "leaves out those with zero.",
            ),
        },
        right="a",
        lesson="01_what_is_pruning.ipynb",
    ),
    3: Question(
        "Of 100 scores 70 are exactly 0 and 30 are 1. Half are to be pruned. The threshold is the "
        "50th smallest score, and `mask = score > threshold`. How many are pruned?",
        {
            "a": (
                "50",
                "That was asked for. But the threshold is 0, and what is compared with it are not 50 "
                "scores but all those equal to it.",
            ),
            "b": (
                "30",
                "Those are kept: only the ones are above the threshold of 0.",
            ),
            "c": (
                "100",
                "The 50th smallest score is 0, and the ones are above it: they stay.",
            ),
            "d": (
                "70",
                "The threshold is 0, so all 70 ties go with it. Prune by position, count what you pruned, "
                "and report that.",
            ),
        },
        right="d",
        lesson="02_magnitude_pruning.ipynb",
    ),
    4: Question(
        "You prune a network in the middle of its training with SGD and momentum. From then on you set "
        "the gradients of the pruned weights to zero before every step. Do these weights stay at zero?",
        {
            "a": (
                "Yes: without a gradient no optimizer moves a weight",
                "An optimizer moves weights by its own state. The momentum of earlier steps is still there.",
            ),
            "b": (
                "No: the momentum of earlier steps moves them",
                "The first step brings them back, gradient or not. Set the weights themselves to zero "
                "after each step.",
            ),
            "c": (
                "Yes, if there is weight decay: it pulls them back to zero",
                "Weight decay pulls a little at each step. Meanwhile they are not zero, and the momentum "
                "moves them further.",
            ),
            "d": (
                "No: weight decay moves them",
                "The decay of a weight is in proportion to it, and that of zero is zero. Something else "
                "moves them.",
            ),
        },
        right="b",
        lesson="02_magnitude_pruning.ipynb",
    ),
    5: Question(
        "Someone trains a large network, prunes 95 %, fine-tunes it and loses one point. Pruned at "
        "random, it loses ten. Which control is missing, if the claim is that it takes a large network to "
        "get there?",
        {
            "a": (
                "A dense network as small as the pruned one, trained as long",
                "If it does as well, nobody needed the large network, nor a sparse format. On the digits "
                "it did for a long way.",
            ),
            "b": (
                "Random pruning at a lower sparsity",
                "That compares two sparsities. The random control at the same sparsity is there, and it "
                "shows that the choice of weights matters. The claim is about the size at the start.",
            ),
            "c": (
                "The large network, dense, trained longer",
                "That shows how much the fine-tuning's epochs are worth, which is good to know. But it "
                "is large itself, so it can't tell whether small from the start is enough.",
            ),
            "d": (
                "None: it is better than random by far",
                "That shows that *which* weights stay matters. It doesn't show that one has to start "
                "with more of them.",
            ),
        },
        right="a",
        lesson="02_magnitude_pruning.ipynb",
    ),
    6: Question(
        "The loss is a parabola in each weight, at its minimum. Weight p is 2, its curvature $h$ is 0.1. "
        "Weight q is 1, its curvature is 2. One of them must go.",
        {
            "a": (
                "Magnitude and Optimal Brain Damage both remove q",
                "Magnitude does: q is smaller. The other compares ½ h w²: that is 0.2 for p and 1 for q.",
            ),
            "b": (
                "Magnitude and Optimal Brain Damage both remove p",
                "Optimal Brain Damage does: ½ h w² is 0.2 for p and 1 for q. Magnitude removes what is "
                "smaller, whatever it costs.",
            ),
            "c": (
                "Magnitude removes q, Optimal Brain Damage p, and p is cheaper",
                "½ h w² is 0.2 for p and 1 for q, and on a parabola it is exact. The larger weight is the "
                "cheaper one, for its parabola is flat.",
            ),
            "d": (
                "Magnitude removes q, Optimal Brain Damage p, and q is cheaper",
                "They do differ. But on a parabola at its minimum ½ h w² *is* the change of the loss: 0.2 "
                "for p and 1 for q.",
            ),
        },
        right="c",
        lesson="03_sensitivity_pruning.ipynb",
    ),
    7: Question(
        "On a trained network the first-order score |mean| ranks single weights almost perfectly by what "
        "their removal does to the loss. Yet score once, prune most of the weights in one cut, and the "
        "network does worse than with magnitude. Why?",
        {
            "a": (
                "The score was computed from too few images",
                "With the same images it ranked single weights almost perfectly. Something changes "
                "between one weight and many.",
            ),
            "b": (
                "The absolute value should be taken inside the mean, then it would win",
                "That helps the single cut, and at 90 % it was still behind magnitude. The trouble is that "
                "there is only one cut.",
            ),
            "c": (
                "Magnitude has seen the training data, the score only calibration images",
                "Both look at weights that training has made, and the score at images besides. It knows "
                "more, not less.",
            ),
            "d": (
                "A slope tells what a short step does, and one cut is a long one",
                "On the way the slopes change, so scores from before the cut are out of date. Taken anew in "
                "sixty short steps, from the same images and with nothing trained, they came out far ahead "
                "of magnitude at 98 %.",
            ),
        },
        right="d",
        lesson="03_sensitivity_pruning.ipynb",
    ),
    8: Question(
        "A sparse network works. Shuffle its mask within each layer, so that only the count of each layer "
        "is kept, and train again: it fails. What has been shown?",
        {
            "a": (
                "Each single weight sits where it must",
                "The shuffle also took away which inputs and units are connected at all, and with them "
                "paths through the network. Shuffle among the same units to ask about single places.",
            ),
            "b": (
                "The mask holds more than each layer's count, and not yet what",
                "Single places, inputs, units, paths: the shuffle broke them all at once. A control that "
                "breaks two things explains neither; the next keeps all but one.",
            ),
            "c": (
                "The budget was wrong",
                "The shuffled mask has exactly the same budget, layer by layer. Whatever failed, it was "
                "not that.",
            ),
            "d": (
                "The initial weights were lucky",
                "The shuffle says nothing on that: it changed the mask. Keep the mask and draw new "
                "weights to ask about them.",
            ),
        },
        right="b",
        lesson="04_when_to_prune.ipynb",
    ),
    9: Question(
        "All weights of a convolution's filter are zero. BatchNorm and ReLU follow. What does the next "
        "layer get from this channel?",
        {
            "a": (
                "A constant, which may be other than zero",
                "BatchNorm subtracts its running mean and adds its shift, whatever comes in. To remove the "
                "channel without a change, add what the next layer makes of the constant to its bias. "
                "(At a padded border even that is not exact.)",
            ),
            "b": (
                "Zeros, so the channel can be removed without a change",
                "The convolution gives zeros. But BatchNorm comes after it, with a mean to subtract and a "
                "shift to add.",
            ),
            "c": (
                "Noise, because BatchNorm divides by a deviation of zero",
                "In evaluation it divides by the *running* deviation, with a small number added. And a "
                "constant divided by anything is no noise.",
            ),
            "d": (
                "What it got before, until BatchNorm's statistics are renewed",
                "The input of BatchNorm has changed already, from images to zeros. Renewing the statistics "
                "changes the constant, not that it is one.",
            ),
        },
        right="a",
        lesson="05_structure_and_speed.ipynb",
    ),
    10: Question(
        "Over five seeds a pruned network leads the dense one by 0.6 points on average, with a 95 % "
        "interval from -0.9 to 2.1. The promise is “pruning makes models more accurate”, and a point is "
        "the least gain that you would prune for. Your verdict?",
        {
            "a": (
                "It holds: the mean is above zero",
                "With other seeds the mean may well be below it: the interval says so. A mean alone is no "
                "verdict.",
            ),
            "b": (
                "It does not hold: the two are equally good",
                "A lead of two points is in the interval as well. That nothing was shown doesn't show "
                "that there is nothing.",
            ),
            "c": (
                "Open: no gain and a gain worth having are both in the interval",
                "A lead of two points and a loss are both compatible with what was measured. More seeds make "
                "the interval narrower.",
            ),
            "d": (
                "It holds in most cases: most of the interval is above zero",
                "The interval is about the mean of many runs, not about single cases, and it was chosen so "
                "that only what lies wholly on one side of the least gain counts.",
            ),
        },
        right="c",
        lesson="06_does_the_promise_hold.ipynb",
    ),
}
