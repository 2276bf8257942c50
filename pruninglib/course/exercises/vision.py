"""Questions of the self-test of Part 2, by number: each option with why it is right or wrong."""

from .exercise import Question

QUESTIONS = {
    1: Question(
        "A pruned classifier has 93.0 % accuracy, the dense one 93.4 %. How many of the dense network's "
        "answers has pruning changed?",
        {
            "a": (
                "0.4 % of them",
                "That is the least it can be. What was wrong before and is right now is counted against "
                "what was right and is wrong now.",
            ),
            "b": (
                "0.4 % or more: accuracy does not say",
                "Gains and losses cancel in it, and a wrong answer may become another wrong one. Compare "
                "the answers themselves.",
            ),
            "c": (
                "7 %, those that are wrong now",
                "Most of them were wrong before. What is wrong is another question than what changed.",
            ),
            "d": (
                "At most 0.4 %: some changes go from wrong to wrong",
                "They do, and they add to the changes without moving accuracy: so it is at least 0.4 %, "
                "not at most.",
            ),
        },
        right="b",
        lesson="07_image_classification.ipynb",
    ),
    2: Question(
        "You look at 30 slices of the test set. One of them, small and faint, lost 12 points, all others "
        "4 or fewer. What may you report?",
        {
            "a": (
                "Small and faint objects lose 12 points",
                "It is the most of thirty, picked *because* it is the most. Chance helped it there, and "
                "other images would show less.",
            ),
            "b": (
                "Nothing: slices are noise",
                "A slice with an interval is evidence like any other. It is picking by the same data that "
                "makes the number too large.",
            ),
            "c": (
                "The mean of the 30 slices",
                "That hides whom it befalls, the question that slices are for. And they overlap, so "
                "their mean counts some images often.",
            ),
            "d": (
                "What the slice loses on images that it was not picked by",
                "Pick on valid, report on test. On the data it was picked by, the worst of many looks worse "
                "than it is.",
            ),
        },
        right="d",
        lesson="07_image_classification.ipynb",
    ),
    3: Question(
        "A pruned detector keeps 90 % of its AP50 and 50 % of its mAP. What has happened to its boxes?",
        {
            "a": (
                "It finds half of the objects",
                "Then AP50 would have fallen as well: it asks whether there is a box that is about right.",
            ),
            "b": (
                "It names objects wrongly",
                "A box of the wrong class finds nothing at any overlap, so AP50 would have fallen as much.",
            ),
            "c": (
                "Most are there, and fit worse",
                "AP50 takes an overlap of a half, mAP also asks for 0.75 and 0.95. Boxes that slip pass the "
                "first and fail the others.",
            ),
            "d": (
                "Its confidences are lower",
                "Neither looks at how high they are, only at their order. Halve all of them, and both stay "
                "as they were.",
            ),
        },
        right="c",
        lesson="08_object_detection.ipynb",
    ),
    4: Question(
        "A head predicts metres. You multiply its weights by 1,000 and divide its output by 1,000 "
        "afterwards: the same function. Then you prune half of the network's weights, in one ranking over all layers. "
        "What becomes of the head's share?",
        {
            "a": (
                "Magnitude now spares the head, Taylor's |g w| decides as before",
                "The weights are larger, and magnitude looks at nothing else. A gradient shrinks as its "
                "weight grows, so their product stays.",
            ),
            "b": (
                "Nothing changes, for the function is the same",
                "Magnitude does not look at the function. It looks at the weights, and these are 1,000 "
                "times as large.",
            ),
            "c": (
                "Both now spare the head",
                "Taylor's score is a change of the loss. The weights are 1,000 times as large, their "
                "gradients a thousandth.",
            ),
            "d": (
                "Magnitude decides as before, Taylor's |g w| now spares the head",
                "It is the other way round: which of the two is made of weights alone?",
            ),
        },
        right="a",
        lesson="08_object_detection.ipynb",
    ),
    5: Question(
        "At the dense network's threshold a pruned detector has more precision than the dense one, and far "
        "less recall. What do you do first?",
        {
            "a": (
                "Report the recall: these objects are lost",
                "Perhaps they are found with a lower confidence. More precision and less recall is what "
                "too high a threshold looks like.",
            ),
            "b": (
                "Fine-tune, for the network has become blind",
                "That may be the next step. But how blind it is can't be told with a threshold made for "
                "other confidences.",
            ),
            "c": (
                "Compare mAP at the new threshold with mAP at the old",
                "mAP has no threshold: it looks at the order of all boxes. It comes out the same.",
            ),
            "d": (
                "Choose its threshold anew, on valid, and compare then",
                "After a cut confidences are others, often lower. What is missed at a threshold of its own, "
                "or at equal precision, has vanished.",
            ),
        },
        right="d",
        lesson="08_object_detection.ipynb",
    ),
    6: Question(
        "A square of 20×20 pixels, and a stroke 2 pixels wide and 20 high. A network has both of them "
        "right, but moved by one pixel to the right. What is the IoU of each?",
        {
            "a": (
                "95 % and 95 %",
                "One column of twenty would be 5 %. But the error counts twice, and of the stroke's columns "
                "one is half of all.",
            ),
            "b": (
                "95 % and 50 %",
                "Those are the shares of each that are still covered. IoU divides by the *union*, which "
                "has grown by what was named too much.",
            ),
            "c": (
                "90 % and 33 %",
                "19 columns of 21, and 1 of 3. A large object has an inside where nothing goes wrong; a "
                "stroke is all outline.",
            ),
            "d": (
                "33 % and 33 %: both outlines are off by a pixel",
                "Their outlines are, and boundary IoU says so. IoU also counts the inside, and the square has "
                "much of it.",
            ),
        },
        right="c",
        lesson="09_segmentation.ipynb",
    ),
    7: Question(
        "A U-Net's decoder layer reads 8 channels from below and then 8 of a skip connection, concatenated. "
        "You remove channel 3 (counted from 0) of the encoder's layer behind the skip. Which of the "
        "decoder layer's 16 input channels goes?",
        {
            "a": (
                "Channel 3",
                "That is what comes from below, number 3. The shapes would agree, nothing would complain, "
                "and the network would read 8 wrong columns.",
            ),
            "b": (
                "Channel 11",
                "The skip begins at 8, so its channel 3 is number 11. Shapes agree for any other choice too: "
                "compare the outputs with those of the masked network.",
            ),
            "c": (
                "Channels 3 and 11",
                "What comes from below has nothing to do with the encoder's channel: it was not removed.",
            ),
            "d": (
                "None: a concatenation makes room for any number",
                "The layer that reads it does not: it has 16 input channels, and now 15 come in.",
            ),
        },
        right="b",
        lesson="09_segmentation.ipynb",
    ),
    8: Question(
        "To see whether a tracker can live with a detector that misses 30 % of the boxes, someone drops 30 % "
        "of a good detector's boxes at random. The tracker bridges nearly all gaps. What does that say of a "
        "pruned detector that misses 30 %?",
        {
            "a": (
                "Little: its misses come in runs",
                "An object that is faint, half hidden or half outside stays so for a while, and is missed for as "
                "long. A tracker bridges short gaps in the life of a track.",
            ),
            "b": (
                "That it may be used: as many boxes are missing",
                "The number is the same. Where they are missing is not, and it decides what can be bridged.",
            ),
            "c": (
                "That it may be used if its false alarms are as few",
                "Those matter, too. But the test changed something else: on whom and when the misses fall.",
            ),
            "d": (
                "That it would even do better: its misses are no accident",
                "That they are no accident is the trouble: the next frame looks alike, and is missed for "
                "the same reason.",
            ),
        },
        right="a",
        lesson="10_tracking.ipynb",
    ),
    9: Question(
        "A pipeline takes 10 ms a frame: 8 in the detector, 2 in everything else. The detector becomes four "
        "times as fast. And the pipeline?",
        {
            "a": (
                "4 times",
                "Only if the detector were all of it. The other 2 ms stay.",
            ),
            "b": (
                "2.5 times",
                "8 ms become 2, the other 2 stay: 4 ms instead of 10. And no detector could make it more than "
                "5 times as fast.",
            ),
            "c": (
                "3.2 times",
                "That is four fifths of four. But times add up, not factors: how many milliseconds are left?",
            ),
            "d": (
                "5 times",
                "That is the limit, with a detector that takes no time at all.",
            ),
        },
        right="b",
        lesson="10_tracking.ipynb",
    ),
    10: Question(
        "Two people cross, and from then on, for the second half of a long film, the tracker calls each by the "
        "other's name. All boxes are right. Which metric falls most?",
        {
            "a": (
                "MOTA",
                "It counts two switches, among the boxes of a whole film: next to nothing.",
            ),
            "b": (
                "The F1 of the boxes",
                "It does not ask for names at all, and all boxes are right.",
            ),
            "c": (
                "IDF1",
                "Each person is given one track for the whole film, and that is right in half of the frames "
                "only.",
            ),
            "d": (
                "None: all boxes are right",
                "They are. But a tracker is there for who it is, and for half of the film it says it wrongly.",
            ),
        },
        right="c",
        lesson="10_tracking.ipynb",
    ),
}
