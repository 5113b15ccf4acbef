"""The phrases of English tickets.

An intent has these forms: ``verb``, what the customer wants to do, as in "I want to ..."; ``noun``,
what it is about, as in "this is about ..."; ``now``, the problem as it stands, a clause; ``past``,
the same when it lies behind them, a clause.
"""

from __future__ import annotations

from attnpriv.data.ticket_grammar import Grammar, Intent

_INTENTS = {
    "account_access": Intent(
        weight=13,
        forms={
            "verb": (
                "[log in|sign in|get into my account] again",
                "[reset|recover] my password",
                "unlock my [account|profile]",
            ),
            "noun": (
                "[a locked account|my locked account]",
                "the login",
                "a password [reset|link]",
            ),
            "now": (
                "I [cannot|can't] [log in|sign in] [to my account|any more|on the site]",
                "my account is [locked|blocked]",
                "the [password|login] link [does not work|never arrives]",
                "the site [refuses|does not accept] my password",
            ),
            "past": (
                "I [could not|couldn't] [log in|sign in] [to my account|on the site]",
                "my account was [locked|blocked]",
                "the [password|login] link did not work",
            ),
        },
    ),
    "address_change": Intent(
        weight=9,
        forms={
            "verb": (
                "[change|update|correct] my [address|delivery address]",
                "have my [orders|parcels] sent to [another|a new] address",
                "tell you that I [moved|have moved]",
            ),
            "noun": ("a new [address|delivery address]", "a change of address", "my move"),
            "now": (
                "I [moved|have moved] and my [account|order] still shows the old address",
                "the address on my [account|invoice|order] is [wrong|out of date]",
                "my parcels still go to [my old flat|the old address]",
            ),
            "past": (
                "the address on my [account|invoice|order] was [wrong|out of date]",
                "my parcels went to [my old flat|the old address]",
                "I had moved and you still had the old address",
            ),
        },
    ),
    "billing_error": Intent(
        weight=11,
        forms={
            "verb": (
                "[report|dispute] a [wrong|double] charge",
                "have a [payment|charge] on my card [checked|corrected]",
                "find out why I was charged [twice|too much]",
            ),
            "noun": (
                "a [wrong|double] charge",
                "a payment that was taken twice",
                "my [wrong|latest] bill",
            ),
            "now": (
                "I [was|have been] charged [twice|too much] for [one order|the same order]",
                "there is a [charge|payment] on my card that I [do not know|never made]",
                "the amount on my [card|bill|account] is [wrong|too high]",
            ),
            "past": (
                "I was charged [twice|too much] for [one order|the same order]",
                "there was a [charge|payment] on my card that I did not know",
                "the amount on my [card|bill|account] was [wrong|too high]",
            ),
        },
    ),
    "cancel_subscription": Intent(
        weight=10,
        forms={
            "verb": (
                "[cancel|end|stop] my [subscription|membership|plan]",
                "[stop|switch off] the automatic renewal",
                "leave the monthly plan",
            ),
            "noun": (
                "[cancelling|ending] my [subscription|membership|plan]",
                "the automatic renewal",
            ),
            "now": (
                "my [subscription|membership|plan] renewed [by itself|again] "
                "although I do not use it",
                "I [no longer|do not] use my [subscription|membership|plan]",
                "there is no way to [cancel|end] the [subscription|plan] "
                "[on the site|in my account]",
            ),
            "past": (
                "my [subscription|membership|plan] renewed by itself",
                "there was no way to [cancel|end] the [subscription|plan]",
                "I had a [subscription|plan] that I did not use",
            ),
        },
    ),
    "damaged_item": Intent(
        weight=12,
        forms={
            "verb": (
                "[exchange|replace] [a broken|a damaged] [item|lamp|kettle|chair]",
                "[report|show you] [damage to|a crack in] the [item|lamp|kettle|chair]",
                "get a replacement for a [broken|damaged] [part|item]",
            ),
            "noun": (
                "a [broken|damaged] [item|lamp|kettle|chair]",
                "a replacement for a [broken|damaged] part",
            ),
            "now": (
                "the [item|lamp|kettle|chair] arrived [broken|damaged|in pieces]",
                "the [box|parcel] was crushed and the [item|lamp|chair] "
                "inside is [broken|scratched]",
                "a part of my order is [cracked|scratched|broken]",
            ),
            "past": (
                "the [item|lamp|kettle|chair] had arrived [broken|damaged|in pieces]",
                "a part of my order was [cracked|scratched|broken]",
                "the box was crushed",
            ),
        },
    ),
    "data_deletion": Intent(
        weight=7,
        forms={
            "verb": (
                "have [my data|all my personal data|everything you know about me] [deleted|erased]",
                "[close|delete] my [account|profile] for good",
                "[know|see] what data you hold on me and have it [deleted|erased]",
            ),
            "noun": ("the deletion of my [data|profile|account]", "my personal data"),
            "now": (
                "you still [keep|hold|store] my [personal data|old profile]",
                "my [profile|data] should have been [deleted|erased] but is still there",
                "I do not agree to the storage of my data any more",
            ),
            "past": (
                "you still [kept|held|stored] my [personal data|old profile]",
                "my [profile|data] had not been [deleted|erased]",
            ),
        },
    ),
    "delivery_delay": Intent(
        weight=14,
        forms={
            "verb": (
                "[know|find out] where my [order|parcel|package] is",
                "[track|trace] [my parcel|a late parcel|my order]",
                "get my [order|parcel|package] at last",
            ),
            "noun": ("a [late|missing] [order|parcel|package]", "[my|a] delivery that is late"),
            "now": (
                "my [order|parcel|package] [has not arrived|is late|is nowhere to be seen]",
                "the tracking of my [order|parcel] has not moved [for days|for a week]",
                "I am still waiting for my [order|parcel|delivery]",
            ),
            "past": (
                "my [order|parcel|package] [had not arrived|was late]",
                "the tracking of my [order|parcel] did not move",
                "I was waiting for [my order|a delivery] for weeks",
            ),
        },
    ),
    "invoice_request": Intent(
        weight=8,
        forms={
            "verb": (
                "[get|receive|download] [an invoice|a receipt] for my [order|payment]",
                "have the [invoice|bill] [sent|issued] [again|to my company]",
                "see the VAT on my [invoice|bill]",
            ),
            "noun": (
                "[an invoice|a receipt] for my [order|payment]",
                "a missing [invoice|receipt]",
            ),
            "now": (
                "I [need|never got] [an invoice|a receipt] for my [order|payment]",
                "the [invoice|receipt] in my account cannot be [opened|downloaded]",
                "my [invoice|bill] does not show the VAT",
            ),
            "past": (
                "I never got [an invoice|a receipt] for my [order|payment]",
                "the [invoice|receipt] in my account could not be [opened|downloaded]",
            ),
        },
    ),
    "refund_request": Intent(
        weight=15,
        forms={
            "verb": (
                "[get|have] [my money|the full amount] back",
                "[ask for|request|get] a refund [for my order|of the payment]",
                "[return|send back] [my order|the item] and be paid back",
            ),
            "noun": (
                "a refund",
                "[my|the] refund [for my order|of the payment]",
                "getting my money back",
            ),
            "now": (
                "I [sent|have sent] [the item|my order] back and "
                "[am waiting|still wait] for the money",
                "my refund is [still not on my card|not there yet|overdue]",
                "the item is not what I ordered and I want [my money back|to be paid back]",
            ),
            "past": (
                "I was waiting for [a refund|my money]",
                "my refund was [overdue|not on my card]",
                "I had sent an order back and waited for the money",
            ),
        },
    ),
    "technical_fault": Intent(
        weight=6,
        forms={
            "verb": (
                "[report|tell you about] a [fault|bug] in the [app|checkout|site]",
                "use the [app|site|checkout] without [errors|crashes]",
                "get the [app|site] to work",
            ),
            "noun": (
                "[an error|a bug|a crash] in the [app|checkout]",
                "the [broken|slow] [app|site]",
            ),
            "now": (
                "the [app|site|checkout] [crashes|freezes|shows an error] "
                "[all the time|when I pay]",
                "I cannot [pay|order|open my account] because the [app|site] [crashes|freezes]",
                "the [pay|order|save] button [does nothing|does not work]",
            ),
            "past": (
                "the [app|site|checkout] [crashed|froze|showed an error] "
                "[all the time|when I paid]",
                "the [pay|order|save] button did nothing",
            ),
        },
    ),
}

_SINGLE = (
    "{now}.",
    "{now}. [Can|Could] you [help|look into it|sort this out]?",
    "I [want|would like|need] to {verb}.",
    "I am [writing|getting in touch] because I [want|need] to {verb}.",
    "[please help me|how do I manage|is there a way] to {verb}?",
    "this is about {noun}. {now}.",
    "I have a [question|problem] [with|about] {noun}.",
    "since {date} the situation is this: {now}.",
    "{now}. So I [want|would like] to {verb}.",
)

# {o_...} is the other issue: solved, denied, or somebody else's. Only the structure tells.
_DOUBLE = (
    "I [do not|don't] [want|need] to {o_verb}, I [only|just] [want|need] to {verb}.",
    "I [only|just] [want|need] to {verb}. I [do not|don't] [want|need] to {o_verb}.",
    "this is not about {o_noun} but about {noun}.",
    "this is about {noun}, not about {o_noun}.",
    "[last month|two weeks ago|in spring] {o_past}, and [you|your team] [fixed|solved] that. "
    "[Today|Now] {now}.",
    "[today|now] {now}. [Last month|Before that] {o_past}, but that is [fixed|solved|done].",
    "on {date} {o_past}; that is [settled|solved]. What I need now is to {verb}.",
    "[thanks for your help|thank you for the quick answer] with {o_noun}, all good there. "
    "[Now|This time] I [need|want] to {verb}.",
    "I [need|want] to {verb}. The [matter of|ticket about] {o_noun} [is closed|can be closed].",
    "your colleague [thought|wrote] that I want to {o_verb}. [No|Wrong], I want to {verb}.",
    "your colleague [understood|answered] that I want to {verb}. [That is right|Exactly], and "
    "[nobody|no one] here wants to {o_verb}.",
    "my [sister|neighbour|friend] wrote to you about {o_noun}. I [write|am writing] about {noun}.",
    "I [write|am writing] about {noun}. It was my [sister|neighbour|friend] who asked about "
    "{o_noun}.",
    "the reason is not that {o_now}. The reason is that {now}.",
    "{now}. It is not that {o_now}.",
)

_DETAILS = {
    "person": ("my name is {person}.", "I am {person}.", "this is {person}."),
    "order": (
        "my order number is {order}.",
        "order [number|no.]: {order}.",
        "it is order {order}.",
    ),
    "phone": (
        "[call|reach] me [at|on] {phone}.",
        "my [phone|mobile] number is {phone}.",
        "phone: {phone}.",
    ),
    "email": (
        "please [write|reply] to {email}.",
        "my [e-mail|address] is {email}.",
        "the account is under {email}.",
    ),
    "card": (
        "I paid with card {card}.",
        "the card [on file|in question] is {card}.",
        "card number {card}.",
    ),
    "iban": ("my [bank account|IBAN] is {iban}.", "I pay from {iban}.", "IBAN: {iban}."),
    "address": ("I live at {address}.", "my address is {address}.", "home address: {address}."),
    "date": ("I [wrote|called] on {date} [already|before].", "all this began on {date}."),
}

_GREETINGS = (
    "hello,",
    "hi [there|team|all],",
    "dear [team|support|sir or madam],",
    "good morning.",
)
_FILLERS = (
    "it is [urgent|rather urgent|not urgent].",
    "I have been a customer for years.",
    "I [tried|looked at] the help pages [first|without luck].",
    "sorry for the [trouble|long message].",
    "nobody [answers the phone|called back].",
    "I order from you [often|every month] and pay on time.",
)
_CLOSINGS = (
    "thanks.",
    "thank you [in advance|for your help].",
    "[kind|best] regards, {person}",
    "regards, {person}",
    "cheers, {person}",
    "please [answer|reply] soon.",
)

ENGLISH = Grammar(
    name="tickets",
    locales=("en_US", "en_GB", "de_DE", "fr_FR"),
    mail_hosts=(
        "river",
        "maple",
        "harbor",
        "violet",
        "copper",
        "meadow",
        "falcon",
        "winter",
        "lemon",
        "castle",
    ),
    months=(
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ),
    dates=(
        "{day:%Y-%m-%d}",
        "{day:%d/%m/%Y}",
        "{day:%d} {month} {day.year}",
        "{month} {day:%d}, {day.year}",
    ),
    intents=_INTENTS,
    single=_SINGLE,
    double=_DOUBLE,
    details=_DETAILS,
    greetings=_GREETINGS,
    fillers=_FILLERS,
    closings=_CLOSINGS,
)
