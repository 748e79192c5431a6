"""Required constraints that cannot all be kept, found before any VM waits for a place.

Invariant: whatever is reported is impossible, on any free capacity. What is `certain` is so whatever nodes
there are; the rest follows from the nodes that are known, and may end when one is added or labelled. Capacity
is not looked at: what it forbids, the placement says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.resources.node_choices import Choice, NodeChoices
from reconciler.resources.placementconstraint import ConstraintType, Enforcement, PlacementConstraintSpec
from reconciler.resources.togetherness import NODE, Togetherness

Labels = Mapping[str, str]
Hosts = Mapping[str, Labels]
"""Every node by name, with its labels."""

MOST_NAMED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A constraint by its name."""

    name: str
    spec: PlacementConstraintSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What of a VM constraints look at."""

    name: str
    labels: Labels = field(default_factory=dict)
    node_selector: Labels = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """`rules`: the constraints that cannot all be kept (one: it alone cannot); `selectors`: VMs whose
    nodeSelector takes part; `vms`: who waits for ever because of it."""

    rules: tuple[str, ...]
    selectors: tuple[str, ...] = ()
    vms: tuple[str, ...]
    why: str
    cure: str
    certain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A Required constraint, and the VMs that it selects, in order of name."""

    rule: Rule
    vms: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Board:
    chosen: tuple[Chosen, ...]
    guests: Mapping[str, Guest]
    hosts: Hosts | None
    together: Togetherness

    def of(self, kind: ConstraintType) -> Iterator[Chosen]:
        return (each for each in self.chosen if each.rule.spec.type is kind)


def contradictions(
    rules: Sequence[Rule], guests: Sequence[Guest], hosts: Hosts | None = None
) -> tuple[Contradiction, ...]:
    """All that is found, certain ones first. `hosts`: None when it is not known which nodes there are."""
    board = _board(rules, guests, hosts)
    apart = [*_together_and_apart(board)]
    found = [each for each in apart if each.certain]
    for known in (None, hosts) if hosts else (None,):
        if known is not None:
            certainly = {vm for each in found for vm in each.vms}
            found += [each for each in apart if not each.certain and not certainly.issuperset(each.vms)]
        choices = _choices(board, known)
        told = {vm for each in found for vm in each.vms}
        nowhere = [*_nowhere(board, choices, told)]
        told |= {vm for each in nowhere for vm in each.vms}
        found += [*nowhere, *_too_few(board, choices, told)]
        if known is not None:
            found += _uneven(board, choices, {vm for each in found for vm in each.vms})
    return tuple(found)


def _board(rules: Sequence[Rule], guests: Sequence[Guest], hosts: Hosts | None) -> _Board:
    by_name = {guest.name: guest for guest in sorted(guests, key=lambda guest: guest.name)}
    having = _by_label(by_name.values())
    chosen = tuple(
        Chosen(rule=rule, vms=_selected(rule, by_name, having))
        for rule in sorted(rules, key=lambda rule: rule.name)
        if rule.spec.enforcement is Enforcement.REQUIRED
    )
    edges = [
        (each.rule.name, each.rule.spec.topology_key, each.vms)
        for each in chosen
        if each.rule.spec.type is ConstraintType.AFFINITY
    ]
    return _Board(chosen=chosen, guests=by_name, hosts=hosts, together=Togetherness(edges))


_Having = Mapping[tuple[str, str], Sequence[str]]
"""The names of those that have a label."""


def _by_label(guests: Iterable[Guest]) -> _Having:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for guest in guests:
        for pair in guest.labels.items():
            found[pair].append(guest.name)
    return found


def _selected(rule: Rule, guests: Mapping[str, Guest], having: _Having) -> tuple[str, ...]:
    """The VMs that a rule is about, without asking each of them where names or labels tell."""
    selector = rule.spec.vms
    names: Collection[str] = guests
    if selector.names:
        names = sorted(set(selector.names) & guests.keys())
    elif selector.match_labels:
        candidates = [having.get(pair, ()) for pair in selector.match_labels.items()]
        names = min(candidates, key=len)
    return tuple(name for name in names if selector.matches(name, guests[name].labels))


def _choices(board: _Board, hosts: Hosts | None) -> NodeChoices:
    kinds = (ConstraintType.NODE_AFFINITY, ConstraintType.NODE_ANTI_AFFINITY)
    about_nodes = [each for each in board.chosen if each.rule.spec.type in kinds]
    return NodeChoices(
        rules=[(each.rule.name, each.rule.spec, each.vms) for each in about_nodes],
        selectors={name: guest.node_selector for name, guest in board.guests.items() if guest.node_selector},
        hosts=hosts,
    )


def _together_and_apart(board: _Board) -> Iterator[Contradiction]:
    for apart in board.of(ConstraintType.ANTI_AFFINITY):
        key = apart.rule.spec.topology_key
        for unit in board.together.units(apart.vms, key):
            if len(unit) < 2:
                continue
            certain = board.together.labelled(unit, key)
            if not certain and not _all_labelled(board.hosts, key):
                continue  # they may share a node that has no value of the key
            one, other = unit[:2]
            through = board.together.path(one, other, key)
            where = "a node" if key == NODE else f"a value of {key}"
            yield Contradiction(
                rules=(*through, apart.rule.name),
                vms=unit,
                why=f"{one} and {other} must share {where} and must not",
                cure="remove one of these constraints, or make it Preferred",
                certain=certain,
            )


def _all_labelled(hosts: Hosts | None, key: str) -> bool:
    return bool(hosts) and all(key in labels for labels in (hosts or {}).values())


def _nowhere(board: _Board, choices: NodeChoices, told: set[str]) -> Iterator[Contradiction]:
    """VMs (those that share a node as one) that no node may take."""
    concerned = [vm for vm in choices.concerned() if vm not in told]
    by_blame: dict[tuple[Choice, ...], list[str]] = {}
    for unit in board.together.units(concerned, NODE, whole=True):
        made = [choice for vm in unit for choice in choices.of(vm)]
        if made and not frozenset.intersection(*(choice.nodes for choice in made)):
            blamed = _culprits(made)
            by_blame.setdefault(blamed, []).extend(unit)
    for blamed, vms in by_blame.items():
        yield _no_node(board, choices, blamed, tuple(sorted(vms)))


def _culprits(made: Sequence[Choice]) -> tuple[Choice, ...]:
    """The fewest that leave no node: one, two, or all."""
    several = list(dict.fromkeys(made))
    for choice in several:
        if not choice.nodes:
            return (choice,)
    for index, one in enumerate(several):
        for other in several[index + 1 :]:
            if not one.nodes & other.nodes:
                return one, other
    return tuple(several)


def _no_node(
    board: _Board, choices: NodeChoices, blamed: tuple[Choice, ...], vms: tuple[str, ...]
) -> Contradiction:
    rules = tuple(dict.fromkeys(choice.rule for choice in blamed if choice.rule))
    selectors = tuple(dict.fromkeys(choice.vm for choice in blamed if choice.vm))
    parties = {vm for each in board.chosen if each.rule.name in rules for vm in each.vms} | set(selectors)
    single = next((vm for vm in vms if all(choice in choices.of(vm) for choice in blamed)), None)
    if single is None:  # it takes what keeps them together to make it impossible
        own = [vm for vm in vms if vm in parties] or list(vms)
        ends = [next((vm for vm in own if choice in choices.of(vm)), own[0]) for choice in blamed]
        for end in ends[1:]:
            rules += tuple(r for r in board.together.path(ends[0], end, NODE) if r not in rules)
        why = f"no node satisfies them for {_and(sorted(set(ends)))}, which must share one"
    elif len(blamed) == 1:
        why = f"there is {choices.lacking(blamed[0])}{choices.known_words()}"
    else:
        many = "both" if len(blamed) == 2 else "all"
        why = f"no node satisfies {many} for {single}{choices.known_words()}"
    return Contradiction(
        rules=rules,
        selectors=selectors,
        vms=vms,
        why=why,
        cure="remove one of these constraints, or make it Preferred"
        if choices.certain
        else "correct it, or add such a node",
        certain=choices.certain,
    )


def _too_few(board: _Board, choices: NodeChoices, told: set[str]) -> Iterator[Contradiction]:
    """More VMs that must be apart than places that may take them."""
    for apart in board.of(ConstraintType.ANTI_AFFINITY):
        key = apart.rule.spec.topology_key
        members = [vm for vm in apart.vms if vm not in told]
        places = {vm: choices.places(vm, key) for vm in members}
        short = _crowded({vm: spots for vm, spots in places.items() if spots is not None})
        if short is None:
            continue
        vms, spots = short
        word = "node" if key == NODE else f"value of {key}"
        only = f"only {_and(sorted(spots))} can take them" if spots else "none can"
        yield Contradiction(
            rules=tuple(dict.fromkeys((apart.rule.name, *choices.rules_of(vms)))),
            vms=tuple(vms),
            why=f"{_and(vms)} ({len(vms)} VMs) must each have a {word} of their own, and {only}",
            cure="remove one of these constraints, or make it Preferred"
            if choices.certain
            else "add nodes, or make the constraint Preferred",
            certain=choices.certain,
        )


def _crowded(places: Mapping[str, frozenset[str]]) -> tuple[list[str], frozenset[str]] | None:
    """VMs that have fewer places than they are, and these places; None when each can have one of its own
    (Hall's theorem, by augmenting paths). Who has as many places as there are VMs always finds one."""
    everything = frozenset[str]().union(*places.values())
    if len(places) > len(everything):
        return sorted(places), everything
    at: dict[str, str] = {}
    for vm in sorted(places):
        if len(places[vm]) >= len(places):
            continue
        holder = {spot: each for each, spot in at.items()}
        came_from: dict[str, str] = {}
        asking = [vm]
        for each in asking:
            for spot in sorted(places[each] - came_from.keys()):
                came_from[spot] = each
                if spot in holder:
                    asking.append(holder[spot])
        free = next((spot for spot in came_from if spot not in holder), None)
        if free is None:
            return sorted(asking), frozenset(came_from)
        while free is not None:  # everybody on the way to the free place moves on by one
            taker = came_from[free]
            at[taker], free = free, at.get(taker)
    return None


def _uneven(board: _Board, choices: NodeChoices, told: set[str]) -> Iterator[Contradiction]:
    """A Spread that can never place all of its VMs, and what needs a label that no node has."""
    for kind in (ConstraintType.AFFINITY, ConstraintType.SPREAD):
        for each in board.of(kind):
            vms = tuple(vm for vm in each.vms if vm not in told)
            key = each.rule.spec.topology_key
            if vms and not choices.all_places(key):
                yield Contradiction(
                    rules=(each.rule.name,),
                    vms=vms,
                    why=f"no node has the label {key}{choices.known_words()}",
                    cure="label the nodes, correct topologyKey, or make the constraint Preferred",
                    certain=False,
                )
            elif vms and kind is ConstraintType.SPREAD:
                yield from _lopsided(board, choices, each, vms)


def _lopsided(
    board: _Board, choices: NodeChoices, spread: Chosen, vms: tuple[str, ...]
) -> Iterator[Contradiction]:
    """A Spread counts over the values that any of its VMs may be at. Some of them that are bound to a few of
    these, or to each other, can be more than the rest can even out."""
    key, skew = spread.rule.spec.topology_key, spread.rule.spec.max_skew
    # Who is told of already counts among the rest: perhaps one of those finds a place.
    everybody = len(spread.vms)
    reach = {vm: choices.reached(vm, key) for vm in spread.vms}
    usable = frozenset[str]().union(*reach.values())
    rules: tuple[str, ...] = ()
    why = ""
    for few in sorted({frozenset(spots) for spots in reach.values()}, key=sorted):
        bound = [vm for vm in vms if reach[vm] <= few]
        others = usable - few
        if few and others and -(-len(bound) // len(few)) - (everybody - len(bound)) // len(others) > skew:
            rules = tuple(choices.rules_of(bound))
            why = f"{_and(bound)} can be at {_and(sorted(few))} only, too many for what can be elsewhere"
            break
    largest = max(board.together.units(vms, key), key=len)
    if not why and len(usable) > 1 and len(largest) - (everybody - len(largest)) // (len(usable) - 1) > skew:
        rules = board.together.path(largest[0], largest[1], key)
        why = f"{_and(largest)} must be together, which is more than the others can even out"
    if why:
        yield Contradiction(
            rules=tuple(dict.fromkeys((spread.rule.name, *rules))),
            vms=vms,
            why=f"{why} (maxSkew {skew})",
            cure="raise maxSkew, or make one of the constraints Preferred",
            certain=False,
        )


def _and(words: Sequence[str]) -> str:
    """`a, b and c`; of many only the first."""
    if len(words) > MOST_NAMED + 1:
        return f"{', '.join(words[:MOST_NAMED])} and {len(words) - MOST_NAMED} more"
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
