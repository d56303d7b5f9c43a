"""Many cameras on many machines: rigs on Ray, a placer that gives cameras to them, and the directory of who has which.

placement   the rule: which camera goes to which rig (pure; a clock and figures go in, decisions come out)
placer      applies it: asks the rigs, orders, keeps what is wanted in the storage, publishes the directory
rig         a process with one model that tracks several cameras and publishes on an address of its own
storage     where states are kept that every machine reaches
cluster     Ray: starts or joins it, and makes the actors
"""
