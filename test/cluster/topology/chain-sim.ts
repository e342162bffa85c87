/**
 * Nodes with a chain each, over a simulated network and simulated catalogs: messages are lost, doubled, late and out of order, links are
 * cut, saves take time and fail, nodes crash at any point and come back with what was durable. All of it drawn from a seed.
 *
 * A book that knows nothing of the chain's own code watches every save and every epoch that a node goes by, and throws at the first that
 * must not be.
 */
import assert from 'node:assert/strict'
import { SunwiseError } from '../../../src/base/errors.ts'
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { type Ballot, compareBallots } from '../../../src/cluster/paxos.ts'
import { Chain, type ChainParameters } from '../../../src/cluster/topology/chain.ts'
import { type ChainMessage, decodeChainMessage } from '../../../src/cluster/topology/chain-messages.ts'
import {
  type ChainRows,
  decodeAcceptor,
  decodeCounter,
  decodeVote,
  encodeAcceptor,
} from '../../../src/cluster/topology/chain-store.ts'
import { invariantsOf, stepInvariantsOf } from '../../../src/cluster/topology/invariants.ts'
import type { ChangeOutcome } from '../../../src/cluster/topology/proposals.ts'
import type { Topology } from '../../../src/cluster/topology/topology.ts'
import {
  decodeTopology,
  digestOf,
  digestOfBytes,
  encodeTopology,
} from '../../../src/cluster/topology/topology-bytes.ts'
import { putBucket } from '../../../src/cluster/topology/transitions.ts'
import { acceptorOf, addressOf, type Change, clusterOf, created, idOf, withAcceptors } from './topology-rig.ts'

const tickMs = 50

type Save = { readonly rows: ChainRows; readonly done: (error: SunwiseError | undefined) => void }

export type SimNode = {
  readonly index: number
  readonly nodeId: string
  readonly address: string
  chain: Chain
  isUp: boolean
  /** Counts lives: what belongs to an earlier one does not happen any more. */
  life: number
  durable: ChainRows
  /** Where its disk is. */
  place: string
  /** Saves under way, in the order of their calls. */
  readonly saves: Save[]
}

export type SimFaults = {
  /** Of this many messages one is lost, one is doubled, one is late by up to three seconds; 0: none. */
  lossOneIn: number
  doubleOneIn: number
  lateOneIn: number
  /** Of this many saves one fails. */
  saveErrorOneIn: number
}

export const noFaults: SimFaults = { lossOneIn: 0, doubleOneIn: 0, lateOneIn: 0, saveErrorOneIn: 0 }

export class ChainSim {
  readonly random: SeededRandom
  readonly nodes: SimNode[] = []
  readonly book = new EpochBook()
  readonly marks = new Map<string, ChangeOutcome | undefined>()
  faults: SimFaults = { ...noFaults }
  reaches: (from: number, to: number) => boolean = () => true
  nowMs = 0
  /** Messages delivered and saves completed: where a crash may be put. */
  happenings = 0
  /** Called before each of them, with the node it happens to. */
  beforeHappening: (node: SimNode) => void = () => {}
  /** Sees every message that is sent. */
  sent: (node: SimNode, message: ChainMessage) => void = () => {}
  forks = 0
  readonly #parameters: Partial<ChainParameters>
  /** Lives that used a ballot. */
  readonly #ballots = new Map<string, number>()
  readonly #events = new Map<number, (() => void)[]>()

  constructor(seed: number | string, parameters: Partial<ChainParameters> = {}) {
    this.random = new SeededRandom(seed)
    this.#parameters = parameters
  }

  /** The first founds a cluster, the others follow. */
  start(count: number, partitions = 8): void {
    for (let index = 0; index < count; index++) this.#add(index)
    const first = withAcceptors(created(partitions))
    this.book.found(first)
    this.nodes[0]!.chain.found(first, () => {})
    this.run(100)
    for (const { chain } of this.nodes.slice(1)) chain.follow(this.#addresses())
  }

  /** All are voters or members from the first. */
  startAtRest(count: number, partitions = 8): void {
    const topology = withAcceptors(clusterOf(count, partitions))
    this.book.found(topology)
    for (let index = 0; index < count; index++) this.#add(index, { topology: encodeTopology(topology) })
  }

  #addresses(): string[] {
    return this.nodes.map(({ address }) => address)
  }

  #add(index: number, durable: ChainRows = {}): void {
    const node: SimNode = {
      index,
      nodeId: idOf(index),
      address: addressOf(index),
      chain: undefined as never,
      isUp: true,
      life: 0,
      place: '',
      durable: { ...durable, acceptor: encodeAcceptor({ id: acceptorOf(index), place: '' }) },
      saves: [],
    }
    this.nodes.push(node)
    this.#begin(node)
  }

  #begin(node: SimNode): void {
    node.chain = new Chain({
      nodeId: node.nodeId,
      random: this.random.fork(node.nodeId),
      nowMs: this.nowMs,
      parameters: this.#parameters,
      stored: node.durable,
      place: node.place,
      store: { save: (rows, done) => this.#save(node, rows, done) },
      send: (to, bytes) => this.#send(node, to, bytes),
      changed: (topology) => {
        this.book.adopted(node.nodeId, topology)
        const isStored =
          node.durable.topology !== undefined && digestOfBytes(node.durable.topology) === digestOf(topology)
        assert.ok(isStored, `${node.nodeId} goes by epoch ${topology.epoch} before it is stored`)
      },
      forked: () => this.forks++,
    })
  }

  crash(node: SimNode): void {
    node.isUp = false
    node.life++
    // Of what was under way some is there, the earlier before the later.
    const kept = this.random.below(node.saves.length + 1)
    for (const { rows } of node.saves.splice(0).slice(0, kept)) this.#keep(node, rows)
  }

  /** Its disk is lost, or what an earlier copy of it holds is put in its place, which it can tell. */
  wipe(node: SimNode, earlier: ChainRows = {}): void {
    if (node.isUp) this.crash(node)
    node.durable = earlier
    node.place += '+'
  }

  /** Whether a node has lost nothing since it was decided that it votes under the id that it has. */
  #isIntact({ nodeId, durable, place }: SimNode): boolean {
    const acceptor = durable.acceptor === undefined ? undefined : decodeAcceptor(durable.acceptor)
    const member = this.book.latest.members.find((other) => other.nodeId === nodeId)
    return member !== undefined && member.acceptor === acceptor?.id && acceptor?.place === place
  }

  /** Whether a majority of those who decide next have lost nothing. */
  get canDecide(): boolean {
    const { voters } = this.book.latest
    const intact = this.nodes.filter((node) => voters.includes(node.nodeId) && this.#isIntact(node))
    return intact.length * 2 > voters.length
  }

  /** Whether a disk can be lost: no other member has lost one, and the others that decide have the latest epoch and are a majority. */
  canLose(node: SimNode): boolean {
    const { voters, members, epoch } = this.book.latest
    const others = this.nodes.filter((other) => other !== node && members.some(({ nodeId }) => nodeId === other.nodeId))
    const keep = others.filter(({ nodeId, durable }) => {
      const topology = durable.topology === undefined ? undefined : decodeTopology(durable.topology)
      return voters.includes(nodeId) && topology?.epoch === epoch
    })
    return keep.length * 2 > voters.length && others.every((other) => this.#isIntact(other))
  }

  restart(node: SimNode): void {
    node.isUp = true
    this.#begin(node)
    if (node.durable.topology === undefined) node.chain.follow(this.#addresses())
  }

  restartLater(node: SimNode, delayMs: number): void {
    this.#at(delayMs, () => {
      if (!node.isUp) this.restart(node)
    })
  }

  /** Lets time pass. */
  run(durationMs: number, each?: () => void): void {
    for (const endMs = this.nowMs + durationMs; this.nowMs < endMs; ) {
      this.nowMs++
      const events = this.#events.get(this.nowMs)
      this.#events.delete(this.nowMs)
      if (events !== undefined) for (const event of events) event()
      for (const node of this.nodes) {
        if (node.isUp && this.nowMs % tickMs === (node.index * 7) % tickMs) node.chain.tick(this.nowMs)
      }
      each?.()
    }
  }

  /** Runs until it is so; returns how long it took, undefined where it took too long. */
  runUntil(isSo: () => boolean, limitMs: number): number | undefined {
    const startMs = this.nowMs
    while (!isSo()) {
      if (this.nowMs - startMs >= limitMs) return undefined
      this.run(10)
    }
    return this.nowMs - startMs
  }

  /** A change of which it is known afterwards whether it was made: a bucket of its own. */
  mark(node: SimNode): string {
    const name = `mark-${this.marks.size}`
    this.marks.set(name, undefined)
    const { life } = node
    node.chain.change(
      (before) => putBucket(before, name, { n: 1 }),
      (outcome) => {
        assert.equal(this.marks.get(name), undefined, `${name} is answered twice`)
        assert.equal(node.life, life, 'Nobody answers who is gone')
        this.marks.set(name, outcome)
      },
    )
    return name
  }

  change(node: SimNode, apply: Change): void {
    node.chain.change(apply, () => {})
  }

  /** An epoch that is decided by one node alone. */
  force(node: SimNode, apply: Change): ChangeOutcome | undefined {
    let answer: ChangeOutcome | undefined
    this.book.isForced = true
    node.chain.force(apply, (outcome) => {
      answer = outcome
    })
    this.run(50)
    this.book.isForced = false
    return answer
  }

  /** The longest chain, and everybody's part of it. */
  checkEnd(): void {
    assert.equal(this.forks, 0, 'Nobody sees another topology of the same epoch')
    this.book.checkMarks(this.marks)
    for (const { nodeId, chain } of this.nodes) {
      const { topology } = chain
      if (topology !== undefined) this.book.adopted(nodeId, topology)
    }
  }

  /** Whether all that are up have the latest epoch. */
  get isConverged(): boolean {
    const latest = this.book.latest.epoch
    return this.nodes.every(({ isUp, chain }) => !isUp || chain.topology?.epoch === latest)
  }

  #at(delayMs: number, event: () => void): void {
    const atMs = this.nowMs + Math.max(1, delayMs)
    const events = this.#events.get(atMs)
    if (events === undefined) this.#events.set(atMs, [event])
    else events.push(event)
  }

  /** Calls `event` unless the node has crashed by then. */
  #happen(node: SimNode, life: number | undefined, event: () => void): void {
    if (!node.isUp || (life !== undefined && node.life !== life)) return
    this.happenings++
    this.beforeHappening(node)
    if (node.isUp) event()
  }

  #send(from: SimNode, address: string, bytes: Uint8Array): void {
    this.#checkSent(from, bytes)
    const to = this.nodes.find((node) => node.address === address)
    if (to === undefined) return
    const { lossOneIn, doubleOneIn, lateOneIn } = this.faults
    const isOne = (oneIn: number): boolean => oneIn > 0 && this.random.chance(1, oneIn)
    if (isOne(lossOneIn)) return
    const copy = bytes.slice()
    for (let copies = isOne(doubleOneIn) ? 2 : 1; copies > 0; copies--) {
      const delayMs = isOne(lateOneIn) ? this.random.between(100, 3000) : this.random.between(1, 20)
      this.#at(delayMs, () => {
        if (!this.reaches(from.index, to.index)) return
        this.#happen(to, undefined, () => to.chain.receive(from.address, copy, this.nowMs))
      })
    }
  }

  /** Nothing is said before it is durable. */
  #checkSent(node: SimNode, bytes: Uint8Array): void {
    const { nodeId, durable } = node
    const message = decodeChainMessage(bytes)!
    this.sent(node, message)
    if (message.type === 'request') {
      const { ballot } = message.request
      const counter = durable.ballot === undefined ? 0 : decodeCounter(durable.ballot)!
      assert.ok(counter >= ballot.counter, `${nodeId} uses ballot ${ballot.counter} before it is stored`)
      const life = this.#ballots.get(`${ballot.proposer} ${ballot.counter}`) ?? node.life
      assert.equal(life, node.life, `${nodeId} uses ballot ${ballot.counter} again after a restart`)
      this.#ballots.set(`${ballot.proposer} ${ballot.counter}`, life)
      if (message.request.type === 'accept') this.book.proposed(message.epoch, ballot, message.request.value)
    }
    if (message.type !== 'reply' || message.reply.type === 'refused' || message.reply.type === 'barred') return
    const { epoch, reply } = message
    const vote = durable.vote === undefined ? undefined : decodeVote(durable.vote)
    // A vote on a later epoch says that this one is decided, and stored.
    if (vote !== undefined && vote.epoch > epoch) return
    const isPromised =
      vote?.epoch === epoch &&
      vote.state.promised !== undefined &&
      compareBallots(vote.state.promised, reply.ballot) >= 0
    assert.ok(isPromised, `${nodeId} answers about ${epoch} before its promise is stored`)
    const told = reply.type === 'accepted' ? reply.ballot : reply.accepted?.ballot
    if (told === undefined) return
    const stored = vote!.state.accepted?.ballot
    const isAccepted = stored !== undefined && compareBallots(stored, told) >= 0
    assert.ok(isAccepted, `${nodeId} says what it accepted for ${epoch} before it is stored`)
  }

  #save(node: SimNode, rows: ChainRows, done: Save['done']): void {
    const { life } = node
    node.saves.push({ rows, done })
    this.#at(this.random.between(1, 15), () => {
      if (node.life !== life) return
      // The oldest ends first, whichever this event was made for.
      this.#happen(node, life, () => this.#saved(node))
    })
  }

  #saved(node: SimNode): void {
    const { rows, done } = node.saves.shift()!
    const { saveErrorOneIn } = this.faults
    if (saveErrorOneIn > 0 && this.random.chance(1, saveErrorOneIn)) {
      if (this.random.chance(1, 2)) this.#keep(node, rows)
      return done(new SunwiseError('DISK_FAILED', 'Cannot save'))
    }
    this.#keep(node, rows)
    done(undefined)
  }

  #keep(node: SimNode, rows: ChainRows): void {
    node.durable = { ...node.durable, ...rows }
    if (rows.vote === undefined) return
    this.book.voted(node.nodeId, rows.vote)
    const has = decodeTopology(node.durable.topology!)!.epoch
    assert.ok(has >= decodeVote(rows.vote)!.epoch - 1, `${node.nodeId} votes on what comes after an epoch it has not`)
  }
}

/** What was decided, by the votes that are on disk, and nothing else. */
export class EpochBook {
  readonly epochs = new Map<number, Topology>()
  readonly #digests = new Map<number, string>()
  /** Who has accepted a value durably: by epoch, ballot and digest of the value. */
  readonly #acceptances = new Map<string, Set<string>>()
  readonly #proposals = new Map<string, string>()
  readonly #authors = new Map<string, number>()
  latest!: Topology
  /** The next epoch that a node goes by was decided by it alone. */
  isForced = false

  found(topology: Topology): void {
    this.#note(topology, digestOf(topology))
  }

  /** A vote is durable. */
  voted(nodeId: string, row: Uint8Array): void {
    const { epoch, state } = decodeVote(row)!
    if (state.accepted === undefined) return
    const { ballot, value } = state.accepted
    const before = this.epochs.get(epoch - 1)
    assert.ok(before !== undefined, `${nodeId} votes on ${epoch}, and ${epoch - 1} is not decided`)
    const digest = digestOfBytes(value)
    const key = `${epoch} ${ballot.counter} ${ballot.proposer} ${digest}`
    const accepted = this.#acceptances.get(key) ?? new Set()
    this.#acceptances.set(key, accepted.add(nodeId))
    const votes = before.voters.filter((voter) => accepted.has(voter)).length
    if (votes * 2 > before.voters.length) this.#decided(decodeTopology(value)!, digest)
  }

  /** A value is proposed. */
  proposed(epoch: number, { counter, proposer }: Ballot, value: Uint8Array): void {
    const key = `${epoch} ${counter} ${proposer}`
    const digest = digestOfBytes(value)
    const known = this.#proposals.get(key)
    assert.ok(known === undefined || known === digest, `Ballot ${key} stands for two values`)
    this.#proposals.set(key, digest)
  }

  /** A node goes by an epoch. */
  adopted(nodeId: string, topology: Topology): void {
    if (this.isForced && !this.epochs.has(topology.epoch)) this.#note(topology, digestOf(topology))
    const [sole, other] = this.epochs.get(topology.epoch - 1)?.members ?? []
    // It has nobody to ask under which id it votes.
    const isSole = sole?.nodeId === nodeId && other === undefined
    if (isSole && !this.epochs.has(topology.epoch)) this.#note(topology, digestOf(topology))
    const known = this.#digests.get(topology.epoch)
    assert.ok(known !== undefined, `${nodeId} goes by epoch ${topology.epoch}, which no majority has decided`)
    assert.equal(digestOf(topology), known, `${nodeId} goes by another epoch ${topology.epoch} than was decided`)
  }

  #decided(topology: Topology, digest: string): void {
    const known = this.#digests.get(topology.epoch)
    if (known === undefined) return this.#note(topology, digest)
    assert.equal(digest, known, `Two topologies are decided for epoch ${topology.epoch}`)
  }

  #note(topology: Topology, digest: string): void {
    const { epoch } = topology
    assert.deepEqual(invariantsOf(topology), [], `epoch ${epoch}`)
    const before = this.epochs.get(epoch - 1)
    if (before !== undefined) {
      assert.deepEqual(stepInvariantsOf(before, topology), [], `epoch ${epoch}`)
      const author = topology.changes.at(-1)!
      assert.equal(this.#authors.get(author), undefined, `The change of epoch ${epoch} is in the chain already`)
      this.#authors.set(author, epoch)
    }
    this.epochs.set(epoch, topology)
    this.#digests.set(epoch, digest)
    this.latest = topology
  }

  /** Each mark is in the chain as often as was answered. */
  checkMarks(marks: ReadonlyMap<string, ChangeOutcome | undefined>): void {
    const made = new Map<string, number>()
    for (const [epoch, topology] of this.epochs) {
      const before = new Set(this.epochs.get(epoch - 1)?.buckets.map(({ id }) => id) ?? [])
      for (const { id, name } of topology.buckets) if (!before.has(id)) made.set(name, (made.get(name) ?? 0) + 1)
    }
    for (const [name, outcome] of marks) {
      const times = made.get(name) ?? 0
      assert.ok(times <= 1, `${name} is made ${times} times`)
      if (outcome?.type === 'decided') assert.equal(times, 1, `${name} was answered, and is not in the chain`)
      const isSurelyNot =
        outcome?.type === 'refused' || (outcome?.type === 'failed' && outcome.error.outcome === 'none')
      if (isSurelyNot) assert.equal(times, 0, `${name} was refused, and is in the chain`)
    }
  }
}
