"""The phrases of German tickets, all of which say Sie.

A verb stands in the second place of a main clause and last in a subordinate one, so an intent has
more forms than in English: ``verb``, what the customer wants to do, an infinitive without zu as in
"ich möchte ..."; ``noun``, what it is about, an accusative as in "es geht um ..."; ``about``, the
same with zu, as in "eine Frage ..."; ``now``, the problem as it stands, a main clause; ``after``,
the same after an adverbial such as "jetzt"; ``that``, the same after "dass" or "weil"; ``past``,
the problem when it lies behind them, after an adverbial such as "letzten Monat".
"""

from __future__ import annotations

from attnpriv.data.ticket_grammar import Grammar, Intent

_INTENTS = {
    "account_access": Intent(
        weight=13,
        forms={
            "verb": (
                "mich wieder [anmelden|einloggen]",
                "mein [Passwort|Kennwort] [zurücksetzen|neu setzen]",
                "mein [Konto|Kundenkonto|Profil] [entsperren|freischalten] lassen",
                "wieder in mein [Konto|Kundenkonto] kommen",
            ),
            "noun": (
                "[ein|mein] gesperrtes [Konto|Kundenkonto]",
                "[den|meinen] Login",
                "einen Link für ein neues [Passwort|Kennwort]",
            ),
            "about": (
                "zu [einem|meinem] gesperrten [Konto|Kundenkonto]",
                "[zum|zu meinem] Login",
                "zum Link für ein neues [Passwort|Kennwort]",
            ),
            "now": (
                "ich kann mich [nicht mehr|nicht] [anmelden|einloggen]",
                "ich komme nicht mehr in mein [Konto|Kundenkonto]",
                "mein [Konto|Kundenkonto] ist [gesperrt|blockiert]",
                "der Link für ein neues Passwort [kommt nicht an|funktioniert nicht]",
                "die Seite [nimmt mein Passwort nicht an|lehnt mein Passwort ab]",
            ),
            "after": (
                "kann ich mich [nicht mehr|nicht] [anmelden|einloggen]",
                "komme ich nicht mehr in mein [Konto|Kundenkonto]",
                "ist mein [Konto|Kundenkonto] [gesperrt|blockiert]",
                "nimmt die Seite mein Passwort nicht [mehr an|an]",
            ),
            "that": (
                "ich mich nicht mehr [anmelden|einloggen] kann",
                "mein [Konto|Kundenkonto] [gesperrt|blockiert] ist",
                "der Link für ein neues Passwort [nicht ankommt|nicht funktioniert]",
                "die Seite mein Passwort nicht [annimmt|akzeptiert]",
            ),
            "past": (
                "konnte ich mich nicht [anmelden|einloggen]",
                "war mein [Konto|Kundenkonto] [gesperrt|blockiert]",
                "hat der Link für ein neues Passwort nicht funktioniert",
            ),
        },
    ),
    "address_change": Intent(
        weight=9,
        forms={
            "verb": (
                "meine [Adresse|Anschrift|Lieferadresse] [ändern|aktualisieren]",
                "meine [Bestellungen|Pakete] an eine [andere|neue] Adresse schicken lassen",
                "Ihnen meinen Umzug [melden|mitteilen]",
            ),
            "noun": (
                "[meine|eine] neue [Adresse|Anschrift|Lieferadresse]",
                "eine [Adressänderung|Änderung der Anschrift]",
                "meinen Umzug",
            ),
            "about": (
                "zu [meiner|einer] neuen [Adresse|Anschrift|Lieferadresse]",
                "zu einer [Adressänderung|Änderung der Anschrift]",
                "zu meinem Umzug",
            ),
            "now": (
                "ich bin umgezogen, und [im Konto|auf der Rechnung] steht noch die alte Adresse",
                "[im Konto|auf der Rechnung|in der Bestellung] steht eine [falsche|alte] Adresse",
                "meine Pakete gehen [immer noch|weiterhin] an "
                "[die alte Adresse|meine alte Wohnung]",
            ),
            "after": (
                "steht [im Konto|auf der Rechnung|in der Bestellung] eine [falsche|alte] Adresse",
                "gehen meine Pakete an [die falsche Adresse|meine alte Wohnung]",
                "wohne ich [woanders|unter einer neuen Anschrift]",
            ),
            "that": (
                "ich [umgezogen bin|jetzt woanders wohne]",
                "[im Konto|auf der Rechnung|in der Bestellung] eine [falsche|alte] Adresse steht",
                "meine Pakete [immer noch|weiterhin] an die alte Adresse gehen",
            ),
            "past": (
                "stand [im Konto|auf der Rechnung|in der Bestellung] eine [falsche|alte] Adresse",
                "gingen meine Pakete noch an [die alte Adresse|meine alte Wohnung]",
                "war ich umgezogen und Sie hatten noch die alte Adresse",
            ),
        },
    ),
    "billing_error": Intent(
        weight=11,
        forms={
            "verb": (
                "eine [falsche|doppelte] Abbuchung [melden|reklamieren]",
                "eine Abbuchung von meiner Karte [prüfen|korrigieren] lassen",
                "klären, warum [zweimal|zu viel] abgebucht wurde",
            ),
            "noun": (
                "eine [falsche|doppelte] Abbuchung",
                "einen [doppelt|zweimal] abgebuchten Betrag",
                "einen Fehler auf [meiner|der letzten] Abrechnung",
            ),
            "about": (
                "zu einer [falschen|doppelten] Abbuchung",
                "zu einem [doppelt|zweimal] abgebuchten Betrag",
                "zu einem Fehler auf [meiner|der letzten] Abrechnung",
            ),
            "now": (
                "mir wurde für [eine einzige|dieselbe] Bestellung [zweimal|zu viel] abgebucht",
                "auf meiner Karte ist eine [Abbuchung|Zahlung], die ich "
                "nicht [kenne|veranlasst habe]",
                "der Betrag auf [der Abrechnung|meiner Karte] "
                "[ist falsch|ist zu hoch|stimmt nicht]",
            ),
            "after": (
                "wird mir [zweimal|zu viel] abgebucht",
                "ist auf meiner Karte eine [Abbuchung|Zahlung], die ich nicht kenne",
                "stimmt der Betrag auf [der Abrechnung|meiner Karte] nicht",
            ),
            "that": (
                "mir für dieselbe Bestellung [zweimal|zu viel] abgebucht wurde",
                "auf meiner Karte eine [Abbuchung|Zahlung] ist, die ich nicht kenne",
                "der Betrag auf [der Abrechnung|meiner Karte] [falsch|zu hoch] ist",
            ),
            "past": (
                "wurde mir für dieselbe Bestellung [zweimal|zu viel] abgebucht",
                "war auf meiner Karte eine [Abbuchung|Zahlung], die ich nicht kannte",
                "stimmte der Betrag auf [der Abrechnung|meiner Karte] nicht",
            ),
        },
    ),
    "cancel_subscription": Intent(
        weight=10,
        forms={
            "verb": (
                "mein [Abo|Abonnement] [kündigen|beenden]",
                "meine Mitgliedschaft [kündigen|beenden]",
                "die automatische Verlängerung [abschalten|stoppen]",
                "aus dem Monatsvertrag aussteigen",
            ),
            "noun": (
                "die Kündigung [meines Abos|meiner Mitgliedschaft]",
                "die automatische Verlängerung",
                "[das|mein] [Abo|Abonnement]",
            ),
            "about": (
                "zur Kündigung [meines Abos|meiner Mitgliedschaft]",
                "zur automatischen Verlängerung",
                "[zum|zu meinem] [Abo|Abonnement]",
            ),
            "now": (
                "mein Abo hat sich [von selbst|automatisch|schon wieder] verlängert",
                "ich [nutze|brauche] [mein Abo|die Mitgliedschaft] [nicht mehr|gar nicht]",
                "das Abo lässt sich [auf der Seite|in der App|im Konto] nicht [kündigen|beenden]",
            ),
            "after": (
                "verlängert sich mein Abo [von selbst|automatisch|immer weiter]",
                "[nutze|brauche] ich [mein Abo|die Mitgliedschaft] [nicht mehr|gar nicht mehr]",
                "lässt sich das Abo [auf der Seite|in der App|im Konto] nicht [kündigen|beenden]",
            ),
            "that": (
                "sich mein Abo [von selbst|automatisch|schon wieder] verlängert hat",
                "ich [mein Abo|die Mitgliedschaft] nicht mehr [nutze|brauche]",
                "sich das Abo [auf der Seite|in der App|im Konto] nicht kündigen lässt",
            ),
            "past": (
                "hat sich mein Abo [von selbst|automatisch] verlängert",
                "ließ sich das Abo nicht [kündigen|beenden]",
                "hatte ich ein Abo, das ich nicht [nutzte|brauchte]",
            ),
        },
    ),
    "damaged_item": Intent(
        weight=12,
        forms={
            "verb": (
                "eine [kaputte|beschädigte] [Lampe|Kaffeemaschine|Vase] [umtauschen|reklamieren]",
                "einen [Schaden|Riss] an der [Lampe|Kaffeemaschine|Vase] melden",
                "Ersatz für ein [kaputtes|beschädigtes] Teil bekommen",
            ),
            "noun": (
                "eine [kaputte|beschädigte|defekte] [Lampe|Kaffeemaschine|Vase]",
                "Ersatz für ein [kaputtes|beschädigtes] Teil",
                "einen Transportschaden",
            ),
            "about": (
                "zu einer [kaputten|beschädigten|defekten] [Lampe|Kaffeemaschine|Vase]",
                "zum Ersatz für ein [kaputtes|beschädigtes] Teil",
                "zu einem Transportschaden",
            ),
            "now": (
                "die [Lampe|Kaffeemaschine|Vase] kam [kaputt|beschädigt|in Einzelteilen] an",
                "der Karton war eingedrückt, und die [Lampe|Vase] darin ist [zerbrochen|zerkratzt]",
                "ein Teil meiner Bestellung [hat einen Riss|ist zerkratzt|ist kaputt]",
            ),
            "after": (
                "ist die [Lampe|Kaffeemaschine|Vase] [kaputt|defekt|zerbrochen]",
                "hat ein Teil meiner Bestellung [einen Riss|Kratzer]",
                "liegt hier eine [beschädigte|zerkratzte] [Lampe|Kaffeemaschine|Vase]",
            ),
            "that": (
                "die [Lampe|Kaffeemaschine|Vase] [kaputt|beschädigt|in Einzelteilen] ankam",
                "ein Teil meiner Bestellung [einen Riss hat|zerkratzt ist|kaputt ist]",
                "der Karton eingedrückt und die [Lampe|Vase] darin [zerbrochen|zerkratzt] war",
            ),
            "past": (
                "kam die [Lampe|Kaffeemaschine|Vase] [kaputt|beschädigt|in Einzelteilen] an",
                "war ein Teil meiner Bestellung [zerkratzt|zerbrochen|kaputt]",
                "war der Karton eingedrückt",
            ),
        },
    ),
    "data_deletion": Intent(
        weight=7,
        forms={
            "verb": (
                "[meine Daten|alle meine persönlichen Daten] [löschen|entfernen] lassen",
                "mein [Konto|Profil] [endgültig|für immer] löschen",
                "erfahren, was Sie über mich gespeichert haben, und es löschen lassen",
            ),
            "noun": (
                "die Löschung [meiner Daten|meines Profils|meines Kontos]",
                "meine persönlichen Daten",
            ),
            "about": (
                "zur Löschung [meiner Daten|meines Profils|meines Kontos]",
                "zu meinen persönlichen Daten",
            ),
            "now": (
                "Sie speichern [immer noch|weiterhin] [meine persönlichen Daten|mein altes Profil]",
                "[mein Profil|mein altes Konto] sollte gelöscht sein und ist [immer noch|noch] da",
                "ich bin mit der Speicherung meiner Daten nicht mehr einverstanden",
            ),
            "after": (
                "bin ich mit der Speicherung meiner Daten nicht mehr einverstanden",
                "sollten meine Daten gelöscht sein und sind [immer noch|noch] da",
                "dürfen Sie [meine persönlichen Daten|mein Profil] nicht mehr speichern",
            ),
            "that": (
                "Sie [immer noch|weiterhin] [meine persönlichen Daten|mein altes Profil] speichern",
                "[mein Profil|mein altes Konto] [noch nicht|immer noch nicht] gelöscht ist",
                "ich mit der Speicherung meiner Daten nicht mehr einverstanden bin",
            ),
            "past": (
                "hatten Sie [meine Daten|mein Profil] noch nicht gelöscht",
                "war [mein altes Profil|mein altes Konto] [immer noch|noch] da",
            ),
        },
    ),
    "delivery_delay": Intent(
        weight=14,
        forms={
            "verb": (
                "herausfinden, wo [meine Bestellung|mein Paket|meine Sendung] [ist|bleibt]",
                "[meine Sendung|mein Paket] [suchen lassen|verfolgen]",
                "[meine Bestellung|mein Paket|meine Sendung] endlich bekommen",
            ),
            "noun": (
                "ein [verspätetes|verschwundenes] [Paket|Päckchen]",
                "eine [verspätete|fehlende] [Lieferung|Sendung]",
                "die Verspätung meiner [Bestellung|Lieferung]",
            ),
            "about": (
                "zu einem [verspäteten|verschwundenen] [Paket|Päckchen]",
                "zu einer [verspäteten|fehlenden] [Lieferung|Sendung]",
                "zur Verspätung meiner [Bestellung|Lieferung]",
            ),
            "now": (
                "[meine Bestellung|mein Paket] ist [noch nicht da|überfällig|verschwunden]",
                "die Sendungsverfolgung "
                "[steht seit Tagen still|zeigt seit einer Woche nichts Neues]",
                "ich warte [immer noch|seit Wochen] auf "
                "[meine Bestellung|mein Paket|die Lieferung]",
            ),
            "after": (
                "ist [meine Bestellung|mein Paket] [überfällig|verschwunden]",
                "[steht die Sendungsverfolgung still|zeigt die Sendungsverfolgung nichts Neues]",
                "warte ich auf [meine Bestellung|mein Paket|die Lieferung]",
            ),
            "that": (
                "[meine Bestellung|mein Paket] [noch nicht da|überfällig|verschwunden] ist",
                "die Sendungsverfolgung [stillsteht|nichts Neues zeigt]",
                "ich [immer noch|seit Wochen] auf [meine Bestellung|mein Paket] warte",
            ),
            "past": (
                "war [meine Bestellung|mein Paket] [überfällig|nicht angekommen]",
                "stand die Sendungsverfolgung still",
                "habe ich wochenlang auf [meine Bestellung|eine Lieferung] gewartet",
            ),
        },
    ),
    "invoice_request": Intent(
        weight=8,
        forms={
            "verb": (
                "[eine Rechnung|einen Beleg] für meine [Bestellung|Zahlung] "
                "[bekommen|herunterladen]",
                "die Rechnung [noch einmal zugeschickt bekommen|auf meine Firma ausstellen lassen]",
                "die Mehrwertsteuer auf der Rechnung ausgewiesen bekommen",
            ),
            "noun": (
                "[eine Rechnung|einen Beleg] für meine [Bestellung|Zahlung]",
                "[eine fehlende Rechnung|einen fehlenden Beleg]",
            ),
            "about": (
                "[zur Rechnung|zum Beleg] für meine [Bestellung|Zahlung]",
                "[zu einer fehlenden Rechnung|zu einem fehlenden Beleg]",
            ),
            "now": (
                "ich brauche [eine Rechnung|einen Beleg] für meine [Bestellung|Zahlung]",
                "ich habe für meine [Bestellung|Zahlung] [keine Rechnung|keinen Beleg] bekommen",
                "die Rechnung in meinem Konto lässt sich nicht [öffnen|herunterladen]",
                "auf meiner Rechnung fehlt die Mehrwertsteuer",
            ),
            "after": (
                "brauche ich [eine Rechnung|einen Beleg] für meine [Bestellung|Zahlung]",
                "lässt sich die Rechnung in meinem Konto nicht [öffnen|herunterladen]",
                "fehlt auf meiner Rechnung die Mehrwertsteuer",
            ),
            "that": (
                "ich [eine Rechnung|einen Beleg] für meine [Bestellung|Zahlung] brauche",
                "sich die Rechnung in meinem Konto nicht [öffnen|herunterladen] lässt",
                "auf meiner Rechnung die Mehrwertsteuer fehlt",
            ),
            "past": (
                "habe ich für meine [Bestellung|Zahlung] [keine Rechnung|keinen Beleg] bekommen",
                "ließ sich die Rechnung in meinem Konto nicht [öffnen|herunterladen]",
            ),
        },
    ),
    "refund_request": Intent(
        weight=15,
        forms={
            "verb": (
                "[mein Geld|den vollen Betrag] zurückbekommen",
                "eine [Erstattung|Rückerstattung] [beantragen|anfordern]",
                "[die Ware|meine Bestellung] zurückschicken und "
                "[mein Geld|den Betrag] zurückbekommen",
            ),
            "noun": (
                "eine [Erstattung|Rückerstattung]",
                "die [Erstattung|Rückerstattung] [für meine Bestellung|meiner Zahlung]",
                "das Geld für eine Rücksendung",
            ),
            "about": (
                "zu einer [Erstattung|Rückerstattung]",
                "zur [Erstattung|Rückerstattung] [für meine Bestellung|meiner Zahlung]",
                "zum Geld für eine Rücksendung",
            ),
            "now": (
                "ich habe [die Ware|meine Bestellung] zurückgeschickt und "
                "warte noch auf [das|mein] Geld",
                "die [Erstattung|Rückerstattung] ist [noch nicht auf meinem Konto|überfällig]",
                "die Ware ist nicht das, was ich bestellt habe, und ich "
                "[will|möchte] mein Geld zurück",
            ),
            "after": (
                "warte ich auf [mein Geld|die Erstattung|die Rückerstattung]",
                "ist die [Erstattung|Rückerstattung] [überfällig|fällig]",
                "[will|möchte] ich [mein Geld|den vollen Betrag] zurück",
            ),
            "that": (
                "ich [immer noch|seit Wochen] auf [mein Geld|die Erstattung] warte",
                "die [Erstattung|Rückerstattung] [noch nicht da|überfällig] ist",
                "die Ware nicht das ist, was ich bestellt habe",
            ),
            "past": (
                "habe ich auf [eine Erstattung|mein Geld] gewartet",
                "war die [Erstattung|Rückerstattung] [überfällig|nicht auf meinem Konto]",
                "hatte ich eine Bestellung zurückgeschickt und auf das Geld gewartet",
            ),
        },
    ),
    "technical_fault": Intent(
        weight=6,
        forms={
            "verb": (
                "einen [Fehler|Bug] [in der App|auf der Seite|beim Bezahlen] melden",
                "die [App|Seite] ohne [Fehler|Abstürze] nutzen",
                "die [App|Seite] wieder zum Laufen bringen",
            ),
            "noun": (
                "einen [Fehler|Bug|Absturz] [in der App|auf der Seite|beim Bezahlen]",
                "die [kaputte|langsame] [App|Seite]",
            ),
            "about": (
                "zu einem [Fehler|Bug|Absturz] [in der App|auf der Seite|beim Bezahlen]",
                "zur [kaputten|langsamen] [App|Seite]",
            ),
            "now": (
                "die [App|Seite] [stürzt ab|friert ein|zeigt einen Fehler], wenn ich bezahlen will",
                "ich kann nicht [bezahlen|bestellen], weil die [App|Seite] [abstürzt|einfriert]",
                "der Knopf zum [Bezahlen|Bestellen|Speichern] [tut nichts|funktioniert nicht]",
            ),
            "after": (
                "stürzt die [App|Seite] [ständig|beim Bezahlen] ab",
                "zeigt die [App|Seite] [nur noch Fehler|beim Bezahlen einen Fehler]",
                "funktioniert der Knopf zum [Bezahlen|Bestellen|Speichern] nicht",
            ),
            "that": (
                "die [App|Seite] [ständig|beim Bezahlen] [abstürzt|einfriert]",
                "der Knopf zum [Bezahlen|Bestellen|Speichern] [nichts tut|nicht funktioniert]",
            ),
            "past": (
                "ist die [App|Seite] [ständig|beim Bezahlen] [abgestürzt|eingefroren]",
                "hat der Knopf zum [Bezahlen|Bestellen|Speichern] nicht funktioniert",
            ),
        },
    ),
}

_SINGLE = (
    "{now}.",
    "{now}. [Können|Könnten] Sie [mir helfen|sich das ansehen|das klären]?",
    "ich [möchte|will|muss] {verb}.",
    "ich [schreibe Ihnen|melde mich], weil {that}.",
    "[wie|wo] kann ich {verb}?",
    "es geht um {noun}. {now}.",
    "ich habe eine [Frage|dringende Frage|Bitte] {about}.",
    "seit dem {date} {after}.",
    "[im Moment|zurzeit] {after}.",
    "{now}. Deshalb [möchte|will] ich {verb}.",
)

_DOUBLE = (
    "ich [möchte|will] nicht {o_verb}, sondern [nur|einfach nur] {verb}.",
    "ich [möchte|will] [nur|einfach nur] {verb}. [Das heißt|Ich meine] nicht, dass {o_that}.",
    "es geht nicht um {o_noun}, sondern um {noun}.",
    "es geht um {noun}, nicht um {o_noun}.",
    "[letzten Monat|vor zwei Wochen|im Frühjahr] {o_past}, und [das haben Sie|Ihr Team hat das] "
    "[behoben|gelöst]. [Heute|Jetzt] {after}.",
    "[jetzt|heute] {after}. [Letzten Monat|Davor] {o_past}, aber das [ist erledigt|ist gelöst|hat "
    "sich geklärt].",
    "am {date} {o_past}; das [ist geklärt|hat sich erledigt]. Jetzt [möchte|muss] ich {verb}.",
    "[danke|vielen Dank] für Ihre "
    "[schnelle Antwort|Antwort|Nachricht] {o_about}, das hat geklappt. "
    "[Jetzt|Diesmal] [möchte|muss] ich {verb}.",
    "ich [möchte|muss] {verb}. [Das Ticket|Meine Anfrage] {o_about} [ist erledigt|kann geschlossen "
    "werden].",
    "Ihr Kollege [dachte|schrieb], ich wolle {o_verb}. [Nein|Falsch], ich [möchte|will] {verb}.",
    "Ihr Kollege [dachte|schrieb], ich wolle {verb}. [Das stimmt|Genau], und niemand will hier "
    "{o_verb}.",
    "meine [Schwester|Nachbarin|Freundin] hat Ihnen {o_about} geschrieben. Bei mir geht es um "
    "{noun}.",
    "ich schreibe Ihnen {about}. Die [Nachricht|Anfrage] {o_about} kam von meiner "
    "[Schwester|Nachbarin|Freundin].",
    "der Grund ist nicht, dass {o_that}, sondern dass {that}.",
    "{now}. Es ist nicht so, dass {o_that}.",
)

_DETAILS = {
    "person": ("mein Name ist {person}.", "ich heiße {person}.", "hier schreibt {person}."),
    "order": (
        "meine Bestellnummer [ist|lautet] {order}.",
        "[Bestellnummer|Auftragsnummer]: {order}.",
        "es handelt sich um die Bestellung {order}.",
    ),
    "phone": (
        "Sie erreichen mich unter {phone}.",
        "meine [Telefonnummer|Handynummer] ist {phone}.",
        "[Telefon|Mobil]: {phone}.",
    ),
    "email": (
        "bitte [schreiben|antworten] Sie an {email}.",
        "meine E-Mail-Adresse [ist|lautet] {email}.",
        "das Konto läuft auf {email}.",
    ),
    "card": (
        "bezahlt habe ich mit der Karte {card}.",
        "die [hinterlegte|betroffene] Karte ist {card}.",
        "Kartennummer {card}.",
    ),
    "iban": ("meine [Bankverbindung|IBAN] ist {iban}.", "ich zahle von {iban}.", "IBAN: {iban}."),
    "address": (
        "ich wohne hier: {address}.",
        "meine Adresse ist {address}.",
        "[Anschrift|Privatadresse]: {address}.",
    ),
    "date": (
        "ich habe [schon|bereits] am {date} [geschrieben|angerufen].",
        "angefangen hat das alles am {date}.",
    ),
}

GERMAN = Grammar(
    name="tickets-de",
    locales=("de_DE", "de_AT"),
    mail_hosts=(
        "fluss",
        "ahorn",
        "hafen",
        "veilchen",
        "kupfer",
        "wiese",
        "falke",
        "winter",
        "zitrone",
        "burg",
    ),
    months=(
        "Januar",
        "Februar",
        "März",
        "April",
        "Mai",
        "Juni",
        "Juli",
        "August",
        "September",
        "Oktober",
        "November",
        "Dezember",
    ),
    dates=("{day:%d.%m.%Y}", "{day.day}.{day.month}.{day.year}", "{day.day}. {month} {day.year}"),
    intents=_INTENTS,
    single=_SINGLE,
    double=_DOUBLE,
    details=_DETAILS,
    greetings=(
        "hallo,",
        "hallo [zusammen|liebes Team],",
        "guten [Tag|Morgen|Abend],",
        "sehr geehrte Damen und Herren,",
    ),
    fillers=(
        "es [ist dringend|eilt|eilt nicht].",
        "ich bin seit Jahren Kunde bei Ihnen.",
        "die Hilfeseiten habe ich [schon gelesen|ohne Erfolg durchsucht].",
        "entschuldigen Sie die [Störung|lange Nachricht].",
        "am Telefon [geht niemand ran|habe ich niemanden erreicht].",
        "ich bestelle [oft|jeden Monat] bei Ihnen und zahle pünktlich.",
    ),
    closings=(
        "danke.",
        "vielen Dank [im Voraus|für Ihre Hilfe].",
        "[mit freundlichen Grüßen|beste Grüße] {person}",
        "viele Grüße, {person}",
        "bitte [antworten Sie|melden Sie sich] bald.",
    ),
)
