"""Patterns of postal addresses, and of names beside the words that announce them.

They see capitals, so that texts without them are also read as prose (``readings``). No repetition
is without an end, so that the search takes linear time.
"""

from __future__ import annotations

# A word with a capital, or an initial; what may stand small within a name; and a name.
_CAPITAL = r"(?:\p{Lu}\.(?!\w)|\p{Lu}[\p{L}\p{M}]{0,30}(?:['\u2019.-]\p{L}[\p{L}\p{M}]{0,30}){0,3})"
_SMALL = (
    r"(?:of|the|and|de|du|des|la|le|les|del|della|delle|dei|di|da|do|dos|das|van|von|der|den|zu|"
    r"zum)"
)
_NAME = rf"{_CAPITAL}(?:[ ](?:{_SMALL}[ ]){{0,2}}{_CAPITAL}){{0,4}}"

_NUMBER = r"(?:\d{1,5}(?:[-/]\d{1,4})?(?:[ ]?[A-Za-z])?)(?!\w)"
_LARGE = r"(?<!\w)\d{2,5}(?:[-/]\d{1,4})?[A-Za-z]?(?!\w)"
_ORDINAL = r"\d{1,3}(?:st|nd|rd|th)"
# What a street is called, after its name, before it, or as the end of one word.
_AFTER = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Way|Place|Pl|Square|"
    r"Sq|Terrace|Ter|Close|Crescent|Cres|Highway|Hwy|Parkway|Pkwy|Circle|Cir|Trail|Trl|Alley|Row|"
    r"Mews|Grove|Hill|Gardens|Gate|Quay|Walk|Esplanade|Parade|Route|Loop|Path|Pike|Plaza|Heights|"
    r"Ridge|Bypass|Expressway|Turnpike|Bridge|Green|Park|View)\b\.?"
)
_BEFORE = (
    r"(?:Rue|rue|Avenue|avenue|Av\.|Boulevard|boulevard|Bd|Place|place|Chemin|chemin|All\u00e9e|"
    r"all\u00e9e|Impasse|impasse|Quai|quai|Route|Cours|Via|via|Viale|viale|Vicolo|Piazza|piazza|"
    r"Piazzale|Corso|Largo|Contrada|Strada|Calle|calle|C/|Avenida|Avda\.|Plaza|plaza|Paseo|Camino|"
    r"Carrera|Ronda|R\u00faa|Rua|rua|Travessa|Pra\u00e7a|Praceta|Ulica|ulica|ul\.|Aleja|aleja|al\.|"
    r"Plac|pl\.|os\.|Trg|trg|Am|An der|Auf der|Im|Zum|Zur|"
    r"\u039f\u03b4\u03cc\u03c2|\u039b\u03b5\u03c9\u03c6\u03cc\u03c1\u03bf\u03c2|"
    r"\u03a0\u03bb\u03b1\u03c4\u03b5\u03af\u03b1|\u0443\u043b\.|\u0443\u043b\u0438\u0446\u0430|"
    r"\u043f\u0440\u043e\u0441\u043f\u0435\u043a\u0442)"
)
_ENDING = (
    r"(?:stra(?:\u00df|ss)e|str\.|weg|gasse|platz|allee|ring|damm|ufer|steig|gata|gatan|gaten|"
    r"v\u00e4g|v\u00e4gen|vei|veien|vegen|gade|gaden|vej|vejen|all\u00e9|straat|laan|plein|kade|"
    r"singel|gracht|katu|kuja|tie|polku|utca|utc\u00e1ja|\u00fat|\u00fatja|t\u00e9r|k\u00f6z|"
    r"ulice|n\u00e1m\u011bst\u00ed|cesta|street)"
)
_UNIT = r"(?:Apt|Apartment|Suite|Ste|Flat)\b\.?[ ]?#?\d{1,5}[A-Za-z]?(?!\w)"
_ROOM = (
    rf"(?:{_UNIT}|(?:Unit|Room|Rm|Floor|Fl|Building|Bldg|Box|Door)\b\.?[ ]?#?\d{{1,5}}[A-Za-z]?"
    r"(?!\w))"
)
_BOX = (
    r"(?:P\.?[ ]?O\.?[ ]?Box[ ]#?\d{1,6}|(?:PSC|CMR|Unit)[ ]\d{1,5},?[ ]Box[ ]\d{1,5}|"
    r"Post(?:fach|bus|boks|office Box)[ ]\d{1,6})(?!\w)"
)
_CODE = (
    r"(?:[A-Z]{1,2}\d[A-Z\d]?[ ]?\d[A-Z]{2}|[A-Z]\d[A-Z][ ]?\d[A-Z]\d|\d{4}[ ]?[A-Z]{2}|"
    r"(?:[A-Z]{1,2}-)?\d{3}[ ]\d{2}|(?:[A-Z]{1,2}-)?\d{2}-\d{3}|"
    r"(?:[A-Z]{1,2}-)?\d{3,6}(?:-\d{3,4})?)(?!\w)"
)
_STATE = (
    r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|PR|RI|"
    r"S[CD]|T[NX]|UT|V[AT]|W[AIVY])"
)
# What follows a street: a door and a town, then region and country if there is a postal code too.
_GAP = r"[\s,]{1,12}"
_BREAK = r"[ ]{0,2}(?:,|\n)[\s,]{0,12}"
_TAIL = (
    rf"(?:\.?{_GAP}{_ROOM}){{0,2}}(?:(?<=\d)[ ]{_NAME})?"
    rf"(?:\.?(?:{_BREAK}{_NAME}){{0,4}}{_GAP}{_CODE}(?:[ ]{_NAME})?"
    rf"|(?:{_BREAK}{_NAME}){{1,3}}(?=\s*$))?"
)

_PLACE = (
    rf"(?:(?:{_NUMBER},?[ ]){{0,2}}{_NAME}(?:[ ]{_NUMBER})?)"  # only where something announces it
)
_LEGAL = (
    r"(?:Inc|Incorporated|Ltd|Limited|LLC|LLP|PLC|Plc|plc|Corp|Corporation|Co|Company|GmbH|AG|SE|"
    r"KG|SA|S\.A\.|SARL|SAS|SpA|S\.p\.A\.|Srl|BV|B\.V\.|NV|N\.V\.|AB|AS|A/S|Oy|Oyj|Kft|Zrt|Pty)"
)
_BODY = (
    r"(?:University|College|Institute|School|Hospital|Clinic|Bank|Group|Holdings?|Partners|"
    r"Associates|Consulting|Consultants|Agency|Foundation|Association|Society|Services|Solutions|"
    r"Systems|Software|Technologies|Technology|Industries|Insurance|Ministry|Council|Committee)"
)

STREET_ADDRESS, ZIP_CODE = "STREET_ADDRESS", "ZIP_CODE"
PERSON, ORGANIZATION = "PERSON", "ORGANIZATION"
_STREETS = {
    "number, name, kind of street": (
        rf"\b(?:{_NUMBER},?[ ]){{1,2}}(?:(?:{_CAPITAL}|{_ORDINAL})[ ]){{1,5}}{_AFTER}"
        rf"(?:[ ]{_NUMBER})?",
        0.6,
    ),
    "number, ordinal, kind of street": (rf"\b{_NUMBER},?[ ]{_ORDINAL}[ ]{_AFTER}", 0.6),
    "kind of street, name, number": (
        rf"\b(?:{_NUMBER},?[ ])?{_BEFORE}[ ](?:{_SMALL}[ ]){{0,2}}{_NAME},?[ ]{_NUMBER}",
        0.6,
    ),
    "number, kind of street, name": (
        rf"\b{_NUMBER},?[ ]{_BEFORE}[ ](?:{_SMALL}[ ]){{0,2}}{_NAME}",
        0.6,
    ),
    "name that ends like a street, number": (
        rf"\b(?:{_NUMBER},?[ ])?(?:{_CAPITAL}[ ]){{0,3}}[\p{{L}}-]{{2,30}}{_ENDING}[ ]{_NUMBER}",
        0.6,
    ),
    "number, name, number": (rf"{_LARGE}[ ]{_NAME}[ ]{_NUMBER}", 0.5),
    "number, name, door": (rf"{_LARGE}[ ]{_NAME}(?={_GAP}{_UNIT})", 0.5),
    "door, number, name": (rf"{_UNIT}{_GAP}{_NUMBER}[ ]{_NAME}(?:[ ]{_NUMBER})?", 0.5),
    "number, name, town with code": (
        rf"{_LARGE}[ ]{_NAME}(?=(?:{_BREAK}{_NAME}){{1,3}}{_GAP}{_CODE})",
        0.5,
    ),
    "name of a street after a preposition": (
        rf"(?<=\b(?:on|at|near|off|down|along|lives?|living)[ ])(?:{_CAPITAL}[ ]){{1,3}}{_AFTER}",
        0.4,
    ),
    "corner": (rf"\b(?i:(?:the )?corner of) {_PLACE} (?:and|&) {_PLACE}", 0.5),
    "number after the word address": (
        rf"(?<=\b(?i:address|lives? (?:at|on|in)|living (?:at|on|in)|located (?:at|on|in)|"
        rf"situated (?:at|on|in)|is (?:at|on))(?: is)?[: ][ ]{{0,8}}){_NAME}[ ]{_NUMBER}",
        0.4,
    ),
    "post office box": (rf"\b(?:{_LARGE}[ ])?{_BOX}", 0.6),
    "door": (rf"\b{_UNIT}", 0.5),
}
PATTERNS: dict[str, dict[str, tuple[str, float]]] = {
    STREET_ADDRESS: {
        **{name: (street + _TAIL, score) for name, (street, score) in _STREETS.items()},
        "town, state, code": (rf"\b{_NAME},?[ ]{_STATE},?[ ]\d{{5}}(?:-\d{{4}})?(?!\w)", 0.5),
        "military": (r"\b(?:APO|FPO|DPO),?[ ]A[AEP],?[ ]\d{5}(?:-\d{4})?(?!\w)", 0.6),
    },
    ZIP_CODE: {
        "code after its name": (
            r"(?<=\b(?i:zip|zip[ -]?code|post(?:al)?[ -]?code|plz)\W{1,3}(?:is\W{1,2})?)" + _CODE,
            0.5,
        ),
        "British": (r"\b[A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2}\b", 0.4),
    },
    PERSON: {
        "after a title": (
            r"(?<=\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Madam|Mme|Mlle|Herr|Frau|Sr|Sra)"
            rf"\.?[ ]){_NAME}",
            0.4,
        ),
        "after an introduction": (
            rf"(?<=\b(?i:my name is|my name's|i am called|call me|name:)[ ]{{1,8}}){_NAME}",
            0.4,
        ),
        "two words after I am": (
            rf"(?<=\b(?:I am|I'm|I\u2019m|i am|i'm|This is|this is)[ ]){_CAPITAL}"
            rf"(?:[ ]{_CAPITAL}){{1,3}}",
            0.3,
        ),
        "after a farewell": (
            r"(?<=\b(?i:regards|sincerely|cheers|thanks|thank you|yours|yours truly|best|"
            rf"greetings),\s{{1,4}}){_NAME}(?=\s{{0,4}}$)",
            0.4,
        ),
        "after a greeting": (
            r"(?<=^(?i:hi|hello|dear|hey)[ ])(?!(?i:sir|madam|support|team|there|all|customer|"
            rf"everyone|everybody|friends?|folks|colleagues?|guys)\b){_NAME}(?=[,!:\n])",
            0.4,
        ),
    },
    ORGANIZATION: {
        "legal form": (rf"\b{_NAME},?[ ]{_LEGAL}\b\.?", 0.4),
        "kind of body": (rf"\b(?:{_CAPITAL}[ ]){{1,4}}{_BODY}(?:[ ]of[ ]{_NAME})?\b", 0.4),
        "body of": (rf"\b{_BODY} of {_NAME}", 0.4),
        "after work": (
            r"(?<=\b(?i:work(?:s|ed|ing)? (?:for|at)|employed (?:by|at)|(?:ceo|founder|director|"
            rf"employees?) (?:of|at))[ ]){_NAME}",
            0.33,
        ),
    },
}
