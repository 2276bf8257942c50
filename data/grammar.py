"""A small grammar that says one thing in English and in French, by French's own rules.

`sentence(draw)` gives both, word by word, and of each French word which phenomena it shows. Nothing
here was translated by anyone: what the grammar does not know, the sentences do not have.
"""

from typing import NamedTuple

words = str.split
VOWELS = set("aeiouéèêâîôœh")  # no word here begins with an aspirated h

# English singular and plural, French singular and plural, gender; "=" for a plural in -s.
PEOPLE = """man men homme = m|woman women femme = f|boy = garçon = m|girl = fille = f|doctor = médecin = m
king = roi = m|queen = reine = f|uncle = oncle = m|aunt = tante = f|brother = frère = m|sister = sœur = f
father = père = m|mother = mère = f|nurse = infirmière = f|actor = acteur = m|actress actresses actrice = f
waiter = serveur = m|waitress waitresses serveuse = f|nephew = neveu neveux m|niece = nièce = f
soldier = soldat = m|child children enfant = m"""
ANIMALS = """cat = chat = m|dog = chien = m|cow = vache = f|horse = cheval chevaux m|bird = oiseau oiseaux m
mouse mice souris souris f|goat = chèvre = f|hen = poule = f|fox foxes renard = m|ant = fourmi = f
eagle = aigle = m|bee = abeille = f|duck = canard = m"""
THINGS = """house = maison = f|tree = arbre = m|garden = jardin = m|street = rue = f|church churches église = f
school = école = f|car = voiture = f|book = livre = m|letter = lettre = f|apple = pomme = f|table = table = f
chair = chaise = f|window = fenêtre = f|door = porte = f|key = clé = f|bridge = pont = m|river = rivière = f
town = ville = f|village = village = m|island = île = f|hotel = hôtel = m|clock = horloge = f|lamp = lampe = f
knife knives couteau couteaux m|plate = assiette = f|cup = tasse = f|shirt = chemise = f|hat = chapeau chapeaux m
shoe = chaussure = f|train = train = m|boat = bateau bateaux m|plane = avion = m|star = étoile = f
flower = fleur = f|wall = mur = m|field = champ = m|castle = château châteaux m|room = chambre = f
bed = lit = m|box boxes boîte = f|egg = œuf = m"""
RARE_BEINGS = """squirrel = écureuil = m|swan = cygne = m|owl = chouette = f|beetle = scarabée = m|seagull = mouette = f
lizard = lézard = m|turtle = tortue = f|shark = requin = m|whale = baleine = f|crow = corbeau corbeaux m
spider = araignée = f|toad = crapaud = m|otter = loutre = f|wasp = guêpe = f|snail = escargot = m
donkey = âne = m|monk = moine = m|witch witches sorcière = f|knight = chevalier = m|bride = mariée = f"""
RARE_THINGS = """wheelbarrow = brouette = f|ladder = échelle = f|needle = aiguille = f|anchor = ancre = f
bell = cloche = f|drawer = tiroir = m|pillow = oreiller = m|blanket = couverture = f|sword = épée = f
shield = bouclier = m|candle = bougie = f|broom = balai = m|bucket = seau seaux m|hammer = marteau marteaux m|nail = clou = m
sail = voile = f|oar = rame = f|kettle = bouilloire = f|fork = fourchette = f|spoon = cuillère = f
bottle = bouteille = f|basket = panier = m|glove = gant = m|belt = ceinture = f|button = bouton = m
sleeve = manche = f|umbrella = parapluie = m|stamp = timbre = m|drum = tambour = m|violin = violon = m
trumpet = trompette = f|cliff = falaise = f|cave = grotte = f|lighthouse = phare = m|mill = moulin = m
barn = grange = f|fountain = fontaine = f|statue = statue = f|attic = grenier = m|rope = corde = f"""

# English, then French masculine, feminine, and their plurals; "=" for -e, -s, -es.
BEFORE = """small petit = = =|big grand = = =|pretty joli = = =|bad mauvais = mauvais =|young jeune jeune = =
old vieux vieille vieux =|new nouveau nouvelle nouveaux =|beautiful beau belle beaux =|fat gros grosse gros =
long long longue = ="""
BEFORE_VOWEL = {"vieux": "vieil", "nouveau": "nouvel", "beau": "bel"}
AFTER = """red rouge rouge = =|blue bleu = = =|green vert = = =|black noir = = =|white blanc blanche = =
yellow jaune jaune = =|grey gris = gris =|round rond = = =|empty vide vide = =|heavy lourd = = =
light léger légère = =|cold froid = = =|dirty sale sale = =|strange étrange étrange = =|quiet calme calme = =
strong fort = = =|happy heureux heureuse heureux =|tired fatigué = = =|sad triste triste = =
dangerous dangereux dangereuse dangereux =|expensive cher chère = =|wet mouillé = = =|dry sec sèche = =
closed fermé = = =|clean propre propre = ="""
RARE_AFTER = """purple violet violette = =|square carré = = =|hollow creux creuse creux =|crooked tordu = = =
rusty rouillé = = =|dusty poussiéreux poussiéreuse poussiéreux =|shiny brillant = = =|striped rayé = = =
lame boiteux boiteuse boiteux =|proud fier fière = =|shy timide timide = =|greedy avide avide = =
lazy paresseux paresseuse paresseux =|brave courageux courageuse courageux =|jealous jaloux jalouse jaloux =
deaf sourd = = =|blind aveugle aveugle = =|bald chauve chauve = ="""

# English base, third person, past; French je, il, nous, vous, ils, infinitive, participle; "*" for a
# regular verb in -er, given by its stem.
WITH_OBJECT = """see sees saw vois voit voyons voyez voient voir vu|find finds found * trouv
sell sells sold vends vend vendons vendez vendent vendre vendu|love loves loved * aim|hide hides hid * cach
open opens opened ouvre ouvre ouvrons ouvrez ouvrent ouvrir ouvert|wash washes washed * lav
buy buys bought achète achète achetons achetez achètent acheter acheté|break breaks broke * cass
lose loses lost perds perd perdons perdez perdent perdre perdu|draw draws drew * dessin
choose chooses chose choisis choisit choisissons choisissez choisissent choisir choisi
take takes took prends prend prenons prenez prennent prendre pris|forget forgets forgot * oubli
describe describes described décris décrit décrivons décrivez décrivent décrire décrit
follow follows followed suis suit suivons suivez suivent suivre suivi|admire admires admired * admir
repair repairs repaired * répar|keep keeps kept * gard|bring brings brought * apport|touch touches touched * touch
show shows showed * montr"""
RARE_WITH_OBJECT = """bury buries buried * enterr|borrow borrows borrowed * emprunt|scratch scratches scratched * gratt
measure measures measured * mesur|rescue rescues rescued * sauv|wrap wraps wrapped * emball|burn burns burned * brûl
bite bites bit mords mord mordons mordez mordent mordre mordu|frighten frightens frightened * effray"""
WITHOUT = """sing sings sang * chant|dance dances danced * dans|work works worked * travaill
sleep sleeps slept dors dort dormons dormez dorment dormir dormi|laugh laughs laughed ris rit rions riez rient rire ri"""
WITH_ETRE = """arrive arrives arrived * arriv|fall falls fell * tomb|enter enters entered * entr|stay stays stayed * rest
leave leaves left pars part partons partez partent partir parti
come comes came viens vient venons venez viennent venir venu
die dies died meurs meurt mourons mourez meurent mourir mort"""

PERSONS = ("je", "il", "nous", "vous", "ils")
AVOIR = dict(zip(PERSONS, words("ai a avons avez ont"), strict=True))
ETRE = dict(zip(PERSONS, words("suis est sommes êtes sont"), strict=True))
ALLER = dict(zip(PERSONS, words("vais va allons allez vont"), strict=True))
OWNERS = {  # English: French masculine, feminine, plural
    "my": words("mon ma mes"),
    "his": words("son sa ses"),
    "her": words("son sa ses"),
    "our": words("notre notre nos"),
    "your": words("votre votre vos"),
    "their": words("leur leur leurs"),
}
PLACES = {"near": "près de", "behind": "derrière", "under": "sous", "in front of": "devant"}
TIMES = {"past": ("yesterday", "hier"), "present": ("now", "maintenant")}
TIMES["future"] = ("tomorrow", "demain")

UNITS = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
)
UNITS += words("fifteen sixteen seventeen eighteen nineteen")
TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")
UNITÉS = words(
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize"
)
UNITÉS += words("dix-sept dix-huit dix-neuf")
DIZAINES = words("vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt")

ARTICLE, GENDER, DISTANCE, NEGATION, ELISION, ORDER, NUMBER, RARE = "agdneo7r"


class Word(NamedTuple):
    """A French word and the phenomena that it shows, a letter for each."""

    text: str
    marks: str = ""


class Phrase(NamedTuple):
    """A noun with what belongs to it: English and French words, person and gender."""

    english: list[str]
    french: list[Word]
    person: str
    gender: str

    @property
    def plural(self) -> bool:
        return self.person == "ils"


class Noun(NamedTuple):
    one: str
    many: str
    un: str
    des: str
    gender: str
    rare: bool


def _nouns(text: str, rare: bool = False) -> list[Noun]:
    found = []
    for one, many, un, des, gender in map(words, text.replace("\n", "|").split("|")):
        many, des = (s + "s" if p == "=" else p for s, p in ((one, many), (un, des)))
        found.append(Noun(one, many, un, des, gender, rare))
    return found


def _adjectives(text: str, rare: bool = False) -> list[tuple[str, dict[str, str], bool]]:
    found = []
    for english, m, f, mp, fp in map(words, text.replace("\n", "|").split("|")):
        f = m + "e" if f == "=" else f
        forms = {"m": m, "f": f, "mp": m + "s" if mp == "=" else mp, "fp": f + "s"}
        found.append((english, forms | ({"fp": fp} if fp != "=" else {}), rare))
    return found


class Verb(NamedTuple):
    base: str
    third: str
    past: str
    present: dict[str, str]
    infinitive: str
    participle: str
    rare: bool


def _verbs(text: str, rare: bool = False) -> list[Verb]:
    found = []
    for base, third, past, *french in map(words, text.replace("\n", "|").split("|")):
        if french[0] == "*":
            french = [french[1] + end for end in words("e e ons ez ent er é")]
        *present, infinitive, participle = french
        forms = dict(zip(PERSONS, present, strict=True))
        found.append(Verb(base, third, past, forms, infinitive, participle, rare))
    return found


_PEOPLE, _ANIMALS, _THINGS = map(_nouns, (PEOPLE, ANIMALS, THINGS))
_RARE_BEINGS, _RARE_THINGS = (_nouns(text, True) for text in (RARE_BEINGS, RARE_THINGS))
_BEFORE, _AFTER = _adjectives(BEFORE), _adjectives(AFTER)
_RARE_AFTER = _adjectives(RARE_AFTER, True)
_WITH_OBJECT, _RARE_WITH_OBJECT = _verbs(WITH_OBJECT), _verbs(RARE_WITH_OBJECT, True)
_WITHOUT, _WITH_ETRE = _verbs(WITHOUT), _verbs(WITH_ETRE)
SELDOM = 16  # one word of so many is rare


def number(n: int) -> tuple[list[str], list[str]]:
    """2 to 99 in words: twenty-one is vingt et un, seventy-one soixante et onze, 81 quatre-vingt-un."""
    if n < 20:
        return [UNITS[n]], UNITÉS[n].replace("-", " - ").split()
    ten, unit = divmod(n, 10)
    english = [TENS[ten - 2], *(["-", UNITS[unit]] if unit else [])]
    over = unit + 10 * (ten in (7, 9))
    french = DIZAINES[ten - 2] + ("s" if n == 80 else "")
    if over in (1, 11) and ten < 8:
        french += " et " + UNITÉS[over]
    elif over:
        french += "-" + UNITÉS[over]
    return english, french.replace("-", " - ").split()


def agreed(forms: dict[str, str], phrase) -> str:
    return forms[phrase.gender + ("p" if phrase.plural else "")]


def gendered(forms: dict[str, str], plural: bool) -> str:
    """The mark of an adjective's agreement, if its form tells the gender: jeune does not."""
    number = "p" if plural else ""
    return GENDER if forms["m" + number] != forms["f" + number] else ""


def _vowel(text: str) -> bool:
    return text[0] in VOWELS


def noun_phrase(draw, nouns, rare, kinds: str = "the a many owner this", negated: bool = False):
    """With an article, a number, an owner or "this", and one time in three with an adjective.

    negated: it is the object of a negated verb, and so "a" and "some" become "de".
    """
    noun = draw.choice(rare if draw.one_in(SELDOM) else nouns)
    kind = draw.choice(words(kinds))
    plural = kind == "many" or (kind != "a" and draw.one_in(3))
    if kind == "a" and draw.one_in(3):
        kind, plural = "some", True
    shape = Phrase([], [], "ils" if plural else "il", noun.gender)
    noun_marks = RARE if noun.rare else ""
    core = [Word(noun.des if plural else noun.un, noun_marks)]
    english = [noun.many if plural else noun.one]
    article = "" if plural else ARTICLE  # a plural article is the same for both
    before = False
    if draw.one_in(3):
        before = draw.one_in(2)
        group = _BEFORE if before else _RARE_AFTER if draw.one_in(SELDOM) else _AFTER
        adjective, forms, is_rare = draw.choice(group)
        text, marks = agreed(forms, shape), gendered(forms, plural) + (RARE if is_rare else "")
        if before and not plural and noun.gender == "m" and _vowel(noun.un):
            text = BEFORE_VOWEL.get(text, text)
        english.insert(0, adjective)
        if before:
            core.insert(0, Word(text, marks))
        else:
            core = [Word(core[0].text, noun_marks + ORDER), Word(text, marks)]
    vowel = _vowel(core[0].text)
    if kind == "the":
        french = [Word("les")] if plural else [Word("l'", ELISION)] if vowel else None
        french = french or [Word("la" if noun.gender == "f" else "le", ARTICLE)]
        english.insert(0, "the")
    elif kind in ("a", "some") and negated:
        french = [Word("d'", NEGATION + ELISION)] if vowel else [Word("de", NEGATION)]
        english.insert(0, "any" if plural else "an" if english[0][0] in "aeiou" else "a")
    elif kind == "a":
        french = [Word("une" if noun.gender == "f" else "un", ARTICLE)]
        english.insert(0, "an" if english[0][0] in "aeiou" else "a")
    elif kind == "some":
        french = [Word("de" if before else "des")]
        english.insert(0, "some")
    elif kind == "many":
        name, nom = number(2 + draw.below(98))
        # "un" at the end of a number agrees: vingt et une clés
        if nom[-1] == "un" and noun.gender == "f":
            nom[-1] = "une"
        french = [Word(word, "" if word == "-" else NUMBER) for word in nom]
        english = name + english
    elif kind == "owner":
        owner = draw.choice([*OWNERS])
        m, f, p = OWNERS[owner]
        text = p if plural else m if noun.gender == "m" or vowel else f
        french = [Word(text, "" if plural or vowel or m == f else ARTICLE)]
        english.insert(0, owner)
    else:
        if plural:
            text = "ces"
        elif noun.gender == "f":
            text = "cette"
        else:
            text = "cet" if vowel else "ce"
        french = [Word(text, article)]
        english.insert(0, "these" if plural else "this")
    return Phrase(english, french + core, shape.person, noun.gender)


def of(phrase: Phrase) -> list[Word]:
    """de with an article: du, des, de la, de l'; else de or d'."""
    first, *rest = phrase.french
    if first.text == "le":
        return [Word("du", first.marks), *rest]
    if first.text == "les":
        return [Word("des"), *rest]
    if _vowel(first.text):
        return [Word("d'", ELISION), *phrase.french]
    return [Word("de"), *phrase.french]


def place(draw) -> tuple[list[str], list[Word]]:
    phrase = noun_phrase(draw, _THINGS, _RARE_THINGS, "the the a owner")
    english = draw.choice([*PLACES])
    french = PLACES[english]
    if french == "près de":
        return words(english) + phrase.english, [Word("près"), *of(phrase)]
    return words(english) + phrase.english, [Word(french), *phrase.french]


def subject(draw) -> tuple[Phrase, Phrase | None]:
    """A pronoun or a noun; and what stands between it and the verb, if that is of another kind."""
    if draw.one_in(4):
        english, person, french, gender = draw.choice(
            [("he", "il", "il", "m"), ("she", "il", "elle", "f"), ("I", "je", "je", ""),
             ("we", "nous", "nous", ""), ("you", "vous", "vous", "")]
        )  # fmt: skip
        return Phrase([english], [Word(french)], person, gender), None
    nouns, rare = draw.choice(
        [(_PEOPLE, _RARE_BEINGS), (_PEOPLE, _RARE_BEINGS), (_ANIMALS, _RARE_BEINGS),
         (_THINGS, _RARE_THINGS)]
    )  # fmt: skip
    phrase = noun_phrase(draw, nouns, rare)
    if not draw.one_in(3):
        return phrase, None
    if draw.one_in(2):
        other = noun_phrase(draw, _THINGS, _RARE_THINGS, "the the owner")
        english, preposition = draw.choice([("near", "près"), ("behind", "derrière"), ("of", "")])
        between = of(other) if preposition != "derrière" else other.french
        between = [*([Word(preposition)] if preposition else []), *between]
    else:
        verb, english = draw.choice(_WITH_OBJECT), "who" if nouns is _PEOPLE else "that"
        other = noun_phrase(draw, _ANIMALS + _THINGS, _RARE_THINGS, "the the a owner")
        seen = Word(verb.present[phrase.person])
        between = [Word("qui"), seen, *other.french]
        english = f"{english} {verb.base if phrase.plural else verb.third}"
    whole = phrase._replace(
        english=phrase.english + words(english) + other.english, french=phrase.french + between
    )
    return whole, other


def clause(draw) -> tuple[list[str], list[Word], str]:
    """English, French, and the time: a subject and what is said of it."""
    about, other = subject(draw)
    tense, negation = draw.choice(words("present present past past future")), ""
    if draw.one_in(3):
        negation = "never" if draw.one_in(4) else "not"
    third, english, french = about.person == "il", [*about.english], [*about.french]

    def linked(forms, other_forms) -> str:
        """Marks of what agrees with the subject: over a distance, if what is between would ask
        for another form."""
        return "" if forms == other_forms else DISTANCE

    def form(table: dict[str, str]) -> Word:
        text = table[about.person]
        wrong = text if other is None else table[other.person]
        return Word(text, linked(text, wrong))

    def agreeing(forms: dict[str, str], more: str = "") -> Word:
        text = agreed(forms, about)
        if other is None:
            return Word(text, gendered(forms, about.plural) + more)
        mark = linked(text, agreed(forms, other)) or gendered(forms, about.plural)
        return Word(text, more + mark)

    def say(first: Word, *rest: Word) -> list[Word]:
        """The verb, with ne … pas or ne … jamais around its first word."""
        if not negation:
            return [first, *rest]
        ne = Word("n'", NEGATION + ELISION) if _vowel(first.text) else Word("ne", NEGATION)
        return [ne, first, Word("jamais" if negation == "never" else "pas", NEGATION), *rest]

    known = bool(about.gender)  # "I", "we" and "you" do not tell what an adjective agrees with
    kind = draw.choice(
        words("be be etre object object object without" if known else "object object without")
    )
    if kind == "be":
        tense = "present"
        adjective, forms, is_rare = draw.choice(_RARE_AFTER if draw.one_in(SELDOM) else _AFTER)
        be = "is" if third else "are"
        english += [be, *([negation] if negation else []), adjective]
        french += say(form(ETRE), agreeing(forms, RARE if is_rare else ""))
    else:
        group = {"etre": _WITH_ETRE, "without": _WITHOUT}.get(kind)
        group = group or (_RARE_WITH_OBJECT if draw.one_in(SELDOM) else _WITH_OBJECT)
        verb = draw.choice(group)
        rare = RARE if verb.rare else ""
        if tense == "present":
            base = verb.third if third else verb.base
            negated = ["does" if third else "do", "not", verb.base]
            found = form(verb.present)
            said = say(found._replace(marks=found.marks + rare))
        elif tense == "past":
            base, negated = verb.past, ["did", "not", verb.base]
            if kind == "etre":
                forms = {"m": "", "f": "e", "mp": "s", "fp": "es"}
                forms = {k: verb.participle + end for k, end in forms.items()}
                said = say(form(ETRE), agreeing(forms))
            else:
                said = say(form(AVOIR), Word(verb.participle, rare))
        else:
            be = {"je": "am", "il": "is"}.get(about.person, "are")
            base, negated = f"{be} going to {verb.base}", [be, "not", "going", "to", verb.base]
            said = say(form(ALLER), Word(verb.infinitive, rare))
            if negation == "never":
                base = f"{be} never going to {verb.base}"
        if negation == "not":
            english += negated
        elif negation == "never" and tense != "future":
            english += ["never", *words(base)]
        else:
            english += words(base)
        french += said
        if kind == "object":
            thing = noun_phrase(
                draw, _ANIMALS + _THINGS + _THINGS, _RARE_BEINGS + _RARE_THINGS,
                "the the a many owner this", bool(negation),
            )  # fmt: skip
            english, french = english + thing.english, french + thing.french
        elif draw.one_in(2):
            where = place(draw)
            english, french = english + where[0], french + where[1]
    if french[0].text == "je":
        after = french[1].text
        french[0] = Word("j'", ELISION) if _vowel(after) else Word("je")
    return english, french, tense


def sentence(draw) -> tuple[list[str], list[Word]]:
    """A clause, one time in six after "says that", one time in five with a time at its end."""
    english, french, tense = clause(draw)
    if draw.one_in(5):
        name, nom = TIMES[tense]
        english, french = [*english, name], [*french, Word(nom)]
    if draw.one_in(6):
        speaker = noun_phrase(draw, _PEOPLE, _RARE_BEINGS, "the owner this")
        verb = draw.choice(
            [("say", "says", "dit", "disent"), ("think", "thinks", "pense", "pensent")]
        )
        plural = speaker.plural
        elided = _vowel(french[0].text) and french[0].text not in ("huit", "onze")
        that = Word("qu'", ELISION) if elided else Word("que")
        english = [*speaker.english, verb[0 if plural else 1], "that", *english]
        french = [*speaker.french, Word(verb[3 if plural else 2]), that, *french]
    return [*english, "."], [*french, Word(".")]
