"""The parts of `gpu_check.py`: what is brought along, the steps, and who watches over them.

`pack` and `supervise` and what they import need nothing but the standard library: they run before
what was packed is unpacked. Every other module is a step, run by `worker` in a process of its own.
"""
