"""Published baselines, and a floor and a ceiling; one file and one factory each.

`recipe` makes a generative model of what a baseline adds; `forms` are the adapters from
patients to what a baseline takes, and back.
"""
