"""The whole picture on one machine: every part is real, and what was driven is known from the plan alone.

`plan` is what happens, and what it adds up to; `delivering_worker` and the Go example do it, `picture` has the parts
and drives them, `oracle` says what each query of the dashboard has to answer.
"""
