"""Questions of the self-test of Part 3, by number: each option with why it is right or wrong."""

from .exercise import Question

QUESTIONS = {
    1: Question(
        "Of a table of 1,000 word vectors, 460 are of words that no training text shows. A colleague prunes "
        "40 % of the network's weights by a Taylor score, loses nothing, and reports that the network bears "
        "40 %. What do you answer?",
        {
            "a": (
                "That is what it bears",
                "It bears the loss of rows that it never reads. Any score that asks data gives them zero, so "
                "they went first.",
            ),
            "b": (
                "Magnitude would have been a better judge",
                "It may leave these rows in, for they keep the size they began with. Then it prunes what is used "
                "instead.",
            ),
            "c": (
                "Take the unused rows out first, then ask again",
                "That costs nothing and needs no criterion. What the rest bears is another question, and every "
                "control is then of the same size.",
            ),
            "d": (
                "Rows that are never read should be kept, for safety",
                "They were never trained: what they would say of a new word is noise.",
            ),
        },
        right="c",
        lesson="11_sentiment_analysis.ipynb",
    ),
    2: Question(
        "You shuffle the words of each review, and a network changes 12 % of its answers. Does it read?",
        {
            "a": (
                "That depends on what networks do that were trained on shuffled words",
                "They can't read, and yet their answers move with the order, too: places are inputs. Only what is "
                "moved beyond that speaks for reading.",
            ),
            "b": (
                "Yes: a bag of words would change none",
                "True of a bag of words. A network that learned nothing from order can still be moved by it.",
            ),
            "c": (
                "No: it kept 88 % of its answers",
                "Most reviews can be told by their words alone. Keeping those answers does not speak against "
                "reading.",
            ),
            "d": (
                "Only its accuracy on shuffled words can say",
                "Accuracy may stay while answers change, some to right and some to wrong. And it lacks the same "
                "thing: a network to compare with.",
            ),
        },
        right="a",
        lesson="11_sentiment_analysis.ipynb",
    ),
    3: Question(
        "Each layer of the second block, pruned alone to 90 %, costs nothing. May the block go?",
        {
            "a": (
                "Yes: no layer of it is needed",
                "No layer *alone*. While one was cut, the others were there to do its work.",
            ),
            "b": (
                "No: at 90 % a tenth of each layer is left, and that tenth does the work",
                "It may, or not. Nothing here says which.",
            ),
            "c": (
                "Yes, if the same holds at 99 %",
                "That is still one layer at a time.",
            ),
            "d": (
                "Take it out, whole, from each network, and look",
                "A scan suggests, removal decides, and networks of other seeds may differ.",
            ),
        },
        right="d",
        lesson="11_sentiment_analysis.ipynb",
    ),
    4: Question(
        "After pruning, a translator has lost 21 % of the words that agree in gender and 11 % of all words. "
        "Has pruning harmed *agreement*?",
        {
            "a": (
                "Yes: twice as much is gone",
                "Twice as much is gone of *these words*. They may be lost for another reason than agreement.",
            ),
            "b": (
                "Compare with other words that come as often",
                "Words in a certain form are rarer than words, and what is rare goes first. What is left at equal "
                "frequency may be grammar.",
            ),
            "c": (
                "No: nine of ten words are still right",
                "An average over all words is where such a loss hides.",
            ),
            "d": (
                "Compare BLEU of sentences with and without such words",
                "BLEU mixes these words with all others of the sentence, and says nothing of why.",
            ),
        },
        right="b",
        lesson="12_translation.ipynb",
    ),
    5: Question(
        "A Taylor score is a mean over 300 sentences. A word comes in none of them. What happens to its row of "
        "the source table, in one ranking of all weights?",
        {
            "a": (
                "It goes among the first, whatever the word is worth",
                "No gradient reaches it, so its score is zero. Let magnitude choose in the tables, or leave them "
                "out.",
            ),
            "b": (
                "It stays: nothing is known against it",
                "A score of zero is the lowest there is. To the ranking, not seen and not needed are the same.",
            ),
            "c": (
                "It stays, if its weights are large",
                "Size is multiplied by the gradient, and that is zero.",
            ),
            "d": (
                "It goes, and rightly: a word that rare does not matter",
                "To the mean loss it does not. To who asks for that word it is the whole answer.",
            ),
        },
        right="a",
        lesson="12_translation.ipynb",
    ),
    6: Question(
        "Given the right words before each place, a pruned translator has 97 % of the words right. Writing by "
        "itself, the likeliest word at a time, in how many sentences is every word right?",
        {
            "a": (
                "In 97 % of them",
                "A sentence has many places, and one mistake is enough.",
            ),
            "b": (
                "In fewer than with the right words given, for mistakes lead to mistakes",
                "They do, but only after a first one. A sentence without one never leaves the right words.",
            ),
            "c": (
                "In as many as have all words right when the words before are given",
                "Until the first mistake both see the same words. They part after it, where the sentence is lost "
                "for this count already.",
            ),
            "d": (
                "In $0.97^n$, for sentences of $n$ words",
                "If mistakes fell independently. They gather in hard sentences, so more sentences are free of "
                "them.",
            ),
        },
        right="c",
        lesson="12_translation.ipynb",
    ),
    7: Question(
        "A pruned translator forgets one word of the language, *pas*, and nothing else. It stands in one sentence "
        "of ten, and turns its meaning round. How much of its BLEU does the network lose?",
        {
            "a": (
                "All: the sentences now say the opposite",
                "BLEU knows nothing of meaning. It counts words in a row that the reference has, too.",
            ),
            "b": (
                "Ten points: one sentence in ten is wrong",
                "Such a sentence still shares most of its words in a row with the reference.",
            ),
            "c": (
                "One point: one word of a hundred is wrong",
                "One word is part of up to four n-grams of four words, three of three, two of two. It breaks all "
                "of them.",
            ),
            "d": (
                "A few points: some n-grams of a tenth of the sentences",
                "As much as any frequent word costs. Whoever cares for negation counts it apart.",
            ),
        },
        right="d",
        lesson="12_translation.ipynb",
    ),
    8: Question(
        "A summariser's ROUGE-1 is 0.55. The right summary of another report, put in place of each, would have "
        "0.52. How good is the summariser?",
        {
            "a": (
                "It gets more than half of it right",
                "Half of the words are of the form that all summaries share.",
            ),
            "b": (
                "Next to nothing: the floor is 0.52, not zero",
                "A score is read from its floor, what a fluent sentence about something else would get.",
            ),
            "c": (
                "Good, if ROUGE-2 says so as well",
                "It has a floor, too, lower but not zero. Measure each.",
            ),
            "d": (
                "ROUGE can't say anything",
                "It can: between its floor and one. It can't say which facts are right.",
            ),
        },
        right="b",
        lesson="13_summarisation.ipynb",
    ),
    9: Question(
        "After pruning, 60 % of the summaries are well formed, and of their six facts each 75 % are right. "
        "Which was harmed more, form or facts?",
        {
            "a": (
                "Form: 60 is less than 75",
                "A form counts if the *whole* sentence is right, a fact by itself. One of them was asked more.",
            ),
            "b": (
                "Facts: six at 75 % each make $0.75^6$, 18 %",
                "Only if they were lost independently. Count the summaries with all six right instead.",
            ),
            "c": (
                "Neither, for both are well above their floors",
                "That says that something is left, not what was harmed more.",
            ),
            "d": (
                "Not to be said: compare all-or-nothing with all-or-nothing",
                "Well formed, and all six right: then both are asked at the same grain. Form may still be the easier, so "
                "say what fluent nonsense gets of each: all of the form, none of the facts.",
            ),
        },
        right="d",
        lesson="13_summarisation.ipynb",
    ),
    10: Question(
        "A summariser, pruned to 80 % and fine-tuned, writes well and errs in facts. Does pruning make fluent "
        "liars?",
        {
            "a": (
                "Networks trained too briefly, never pruned, do the same: training brings form first",
                "What is trained last mostly writes well. Merely cut, through all its parts, a network looks as "
                "damaged as it is.",
            ),
            "b": (
                "Yes: before pruning it did not err",
                "It erred, only less; and a network trained for one epoch errs as well. Ask what both have in common.",
            ),
            "c": (
                "Yes: form is stored in large weights, facts in small ones",
                "Then one cut by magnitude through the whole network would take facts and leave form. It takes both.",
            ),
            "d": (
                "No: with more fine-tuning the facts come back",
                "Some do. But that does not say where the fluent errors came from.",
            ),
        },
        right="a",
        lesson="13_summarisation.ipynb",
    ),
    11: Question(
        "Wanda compares weights within each row, magnitude over the whole matrix. At 70 % of a language model, each "
        "used as published, Wanda has the higher perplexity. What follows for its *criterion*?",
        {
            "a": (
                "It is worse than magnitude for this model",
                "Two things differ, and the grain may have cost what the criterion won.",
            ),
            "b": (
                "Rows are the worse grain for this model",
                "They may be. One run in which both differ can't tell either.",
            ),
            "c": (
                "The model has no loud channels, for there Wanda wins",
                "Look at the inputs' norms instead of guessing them from a result.",
            ),
            "d": (
                "Nothing yet: compare both within rows, and both over the matrix",
                "Then criterion and grain vary one at a time.",
            ),
        },
        right="d",
        lesson="14_language_models.ipynb",
    ),
    12: Question(
        "A block is taken out of a model. After a hundred steps towards the dense model's probabilities its "
        "perplexity is 9 % lower than without them. How much of that is the teacher's merit?",
        {
            "a": (
                "All of it: nothing else was trained on",
                "The windows were real text, and any steps on them mend something.",
            ),
            "b": (
                "What is left beside as many steps on the same windows as plain text, their rate tuned as well",
                "Then only the target differs, each piece's probability or the piece that came.",
            ),
            "c": (
                "What is left after taking off what the same steps bring the dense model",
                "That model has nothing to mend. It tells whether the text is new to the model, not what the "
                "teacher adds.",
            ),
            "d": (
                "None: a teacher can't tell more than the text it learned from",
                "It tells for every place how likely each piece is; the text tells one piece. That can be easier to "
                "learn from.",
            ),
        },
        right="b",
        lesson="14_language_models.ipynb",
    ),
}
