"""The privacy budget: what answers may cost, what they have cost, and where that is kept.

``docs/budget.md`` says it for operators, and ``docs/adr/0033-answers-are-paid-for-once.md`` why.
"""
