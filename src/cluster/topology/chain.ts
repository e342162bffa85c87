/**
 * The chain of epochs, as one node keeps it: the latest topology it knows to be decided, a vote on the next, and changes that it proposes.
 *
 *   deciding    epoch e+1 is one instance of Paxos (../paxos.ts) among the voters that epoch e names. Who proposes has epoch e, durably; who
 *               votes, too (chain-voter.ts). Whoever finds that a majority accepted adopts the epoch and tells all members
 *   changes     a change is a pure function of the topology. Where another epoch is decided first, it is applied again to that one, or
 *               dropped with its refusal. A random number names it in the epochs that it made, so that it is known to be in the chain
 *               exactly once, whoever brought it through
 *   catching up `have` tells what a node has; who has more answers with what has changed, or all of it. Now and then to a random member, so
 *               that nothing that was lost stays lost. Who has nothing and was told whom to follow takes what it gets first
 *   force       an epoch that is decided by nobody else, for the case that the voters are gone for good. It is a million epochs on, so that
 *               nothing that the others decide meanwhile can be taken for its successor: where both meet, the forced one stays
 *
 * An object without a thread, clock, disk or socket: `receive` and `tick` move it, `send` carries what it says, `store` keeps what it must
 * not forget. Nothing is adopted, told or answered before it is durable here.
 */
import { assert } from '../../base/assert.ts'
import { SunwiseError } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import type { Random } from '../../env.ts'
import { Proposer } from '../paxos.ts'
import {
  type ChainContent,
  type ChainMessage,
  type ChainReply,
  type ChainRequest,
  decodeChainMessage,
  encodeChainMessage,
  noId,
} from './chain-messages.ts'
import { type ChainRows, type ChainStore, decodeCounter, decodeVote, encodeCounter } from './chain-store.ts'
import { ChainVoter } from './chain-voter.ts'
import { signed } from './plan.ts'
import { isRefusal, type Refusal } from './refusal.ts'
import type { Topology } from './topology.ts'
import { applyDelta, decodeTopology, deltaHead, digestOfBytes, encodeDelta, encodeTopology } from './topology-bytes.ts'

export type ChainParameters = {
  /** A voter that has not answered is asked again after this, give or take a half; after so many times with a new ballot. */
  readonly resendMs: number
  readonly resendsMax: number
  /** A proposal that another one beat waits for so long, give or take a half, twice as long each time. */
  readonly backoffMs: number
  readonly backoffMsMax: number
  /** How often a member is told what this node has. */
  readonly syncIntervalMs: number
  /** A change that is not decided by then is given up. */
  readonly changeTimeoutMs: number
}

export const chainDefaults: ChainParameters = {
  resendMs: 200,
  resendsMax: 4,
  backoffMs: 50,
  backoffMsMax: 2000,
  syncIntervalMs: 1000,
  changeTimeoutMs: 30_000,
}

/** What a forced epoch is ahead of the one before: more than anybody decides in the usual way before he hears of it. */
export const forcedEpochStep = 1_000_000

/** A change: the topology it makes of another, one epoch on, or why it cannot. Called again and again; pure. */
export type TopologyChange = (topology: Topology) => Topology | Refusal

export type ChangeOutcome =
  /** It is in the chain, as the latest epoch or an earlier one; `topology` is the latest that this node has. */
  | { readonly type: 'decided'; readonly topology: Topology }
  | { readonly type: 'refused'; readonly refusal: Refusal }
  /** TIMEOUT, OVERLOADED or NOT_READY, with the outcome that is true. */
  | { readonly type: 'failed'; readonly error: SunwiseError }

export type ChangeDone = (outcome: ChangeOutcome) => void

export type ChainOptions = {
  readonly nodeId: string
  readonly random: Random
  readonly nowMs: number
  readonly store: ChainStore
  /** What the store holds. */
  readonly stored: ChainRows
  readonly parameters?: Partial<ChainParameters>
  /** Sends bytes to an address; they arrive or not. */
  send(address: string, bytes: Uint8Array): void
  /** This node has another epoch. */
  changed?(topology: Topology, before: Topology | undefined): void
  /** A node has another topology of the same epoch: a chain was forced, or data was copied, and people have to look into it. */
  forked?(epoch: number, nodeId: string): void
}

type PastEpoch = { readonly topology: Topology; readonly digest: string }

type Epoch = PastEpoch & { readonly bytes: Uint8Array }

type PendingChange = {
  /** Names it in the chain. */
  readonly change: string
  readonly apply: TopologyChange
  readonly done: ChangeDone
  readonly deadlineMs: number
}

type Proposal = {
  readonly pending: PendingChange
  readonly epoch: number
  readonly value: Uint8Array
  readonly proposer: Proposer<Uint8Array>
  /** The ballot is being stored; nothing is sent before. */
  isStoring: boolean
  /** Some voter may have accepted the value. */
  isOut: boolean
  nextMs: number
  resends: number
  defeats: number
}

export class Chain {
  readonly #options: ChainOptions
  readonly #parameters: ChainParameters
  #nowMs: number
  #epoch: Epoch | undefined
  /** The epochs before, the latest last. */
  #history: PastEpoch[] = []
  /** The epoch that is being stored. */
  #adopting = 0
  #voter: ChainVoter | undefined
  /** The highest counter of a ballot that was used here. */
  #counter: number
  #queue: PendingChange[] = []
  #proposal: Proposal | undefined
  #seeds: readonly string[] = []
  #nextSyncMs: number

  /** @throws CATALOG_CORRUPT where a stored row is none */
  constructor(options: ChainOptions) {
    const { stored, nowMs, store } = options
    this.#options = options
    this.#parameters = { ...chainDefaults, ...options.parameters }
    this.#nowMs = nowMs
    this.#nextSyncMs = nowMs
    this.#counter = stored.ballot === undefined ? 0 : rowOf('ballot', decodeCounter(stored.ballot))
    const vote = stored.vote === undefined ? undefined : rowOf('vote', decodeVote(stored.vote))
    if (stored.topology === undefined) return
    const topology = rowOf('topology', decodeTopology(stored.topology))
    this.#epoch = epochOf(topology, stored.topology)
    this.#voter = new ChainVoter(store, topology.epoch + 1, vote)
  }

  /** The latest epoch that this node has; undefined before it has any. */
  get topology(): Topology | undefined {
    return this.#epoch?.topology
  }

  /** Of the present epoch; gossip may carry it. */
  get digest(): string {
    return this.#epoch?.digest ?? noId
  }

  /** Changes that wait, the one that is proposed among them. */
  get changesPending(): number {
    return this.#queue.length
  }

  /** Begins a chain with a cluster of one. */
  found(topology: Topology, done: (error: SunwiseError | undefined) => void): void {
    assert(this.#epoch === undefined && this.#adopting === 0, 'A node founds a cluster only where it has none')
    this.#adopt(topology, encodeTopology(topology), done)
  }

  /** Takes the chain that is heard of first from these addresses; asks them now and again. */
  follow(seeds: readonly string[]): void {
    this.#seeds = seeds
    this.#nextSyncMs = this.#nowMs
  }

  /** Brings a change into the chain, behind those that wait. `done` is called once. */
  change(apply: TopologyChange, done: ChangeDone): void {
    if (this.#epoch === undefined)
      return done(failed('NOT_READY', 'Cannot change the cluster: this node has not joined'))
    if (this.#queue.length >= Limits.topologyChangesPendingMax)
      return done(failed('OVERLOADED', 'Cannot change the cluster: too many changes wait'))
    const deadlineMs = this.#nowMs + this.#parameters.changeTimeoutMs
    this.#queue.push({ change: this.#newChange(), apply, done, deadlineMs })
    this.#pursue()
  }

  /**
   * Makes an epoch without asking the voters. Only for people who know that a majority of them is gone for good: what those decide
   * all the same is thrown away.
   */
  force(apply: TopologyChange, done: ChangeDone): void {
    if (this.#epoch === undefined)
      return done(failed('NOT_READY', 'Cannot change the cluster: this node has not joined'))
    const { topology } = this.#epoch
    const outcome = apply({ ...topology, epoch: topology.epoch + forcedEpochStep - 1, changes: [] })
    if (isRefusal(outcome)) return done({ type: 'refused', refusal: outcome })
    const forced = signed(outcome, this.#newChange())
    this.#adopt(forced, encodeTopology(forced), (error) => {
      if (error !== undefined) return done({ type: 'failed', error })
      this.#tellAll(topology)
      done({ type: 'decided', topology: forced })
    })
  }

  /** Every 20 to 100 ms. */
  tick(nowMs: number): void {
    this.#nowMs = nowMs
    this.#endLate()
    this.#goOn()
    this.#pursue()
    if (nowMs >= this.#nextSyncMs) this.#sync()
  }

  /** Takes a message; what is none, or of another cluster, is passed over. `from` is the address to answer to. */
  receive(from: string, bytes: Uint8Array, nowMs: number): void {
    this.#nowMs = nowMs
    const message = decodeChainMessage(bytes)
    if (message === undefined || message.sender === this.#options.nodeId) return
    if (this.#epoch === undefined) return this.#hearFirst(from, message)
    const { clusterId } = this.#epoch.topology
    const knowsNone = message.type === 'have' && message.clusterId === noId
    if (message.clusterId !== clusterId && !knowsNone) return
    switch (message.type) {
      case 'have':
        return this.#compare(from, message.sender, message.epoch, message.digest)
      case 'whole':
        return this.#hearWhole(message.value)
      case 'delta':
        return this.#hearDelta(from, message.value)
      case 'request':
        return this.#hearRequest(from, message.epoch, message.request)
      default:
        this.#hearReply(message.sender, message.epoch, message.reply)
    }
  }

  // Catching up.

  /** This node has no chain yet: it takes one only where it was told to. */
  #hearFirst(from: string, message: ChainMessage): void {
    if (this.#seeds.length === 0) return
    if (message.type !== 'whole') {
      // Who has nothing either is not asked: they would ask each other for ever.
      if (message.type !== 'have' || message.epoch > 0) this.#sendHave(from)
      return
    }
    const topology = decodeTopology(message.value)
    if (topology?.clusterId === message.clusterId) this.#adopt(topology, message.value)
  }

  #hearWhole(value: Uint8Array): void {
    const topology = decodeTopology(value)
    if (topology?.clusterId === this.#epoch!.topology.clusterId) this.#adopt(topology, value)
  }

  #hearDelta(from: string, value: Uint8Array): void {
    const { topology, digest } = this.#epoch!
    const after = applyDelta(topology, digest, value)
    if (after !== undefined) return this.#adopt(after, encodeTopology(after))
    // It goes on from another epoch: the sender is told from which this node does. From an earlier one it is old news.
    const head = deltaHead(value)
    if (head !== undefined && head.epoch > topology.epoch) this.#sendHave(from)
  }

  #compare(from: string, sender: string, epoch: number, digest: string): void {
    const own = this.#epoch!
    if (epoch > own.topology.epoch) this.#sendHave(from)
    else if (epoch < own.topology.epoch) this.#sendNews(from, epoch)
    else if (digest !== own.digest) this.#options.forked?.(epoch, sender)
  }

  /** Stores an epoch, then goes by it; passes over what is not newer. */
  #adopt(topology: Topology, bytes: Uint8Array, done: (error: SunwiseError | undefined) => void = () => {}): void {
    const newest = Math.max(this.#adopting, this.#epoch?.topology.epoch ?? 0)
    if (topology.epoch <= newest) return done(undefined)
    this.#adopting = topology.epoch
    this.#options.store.save({ topology: bytes }, (error) => {
      if (this.#adopting === topology.epoch) this.#adopting = 0
      // Whatever is lost here is heard again.
      if (error === undefined && topology.epoch > (this.#epoch?.topology.epoch ?? 0)) this.#become(topology, bytes)
      done(error)
    })
  }

  #become(topology: Topology, bytes: Uint8Array): void {
    const before = this.#epoch
    if (before !== undefined) {
      const past = { topology: before.topology, digest: before.digest }
      this.#history = [...this.#history, past].slice(-Limits.topologyHistoryMax)
    }
    this.#epoch = epochOf(topology, bytes)
    if (this.#voter === undefined) this.#voter = new ChainVoter(this.#options.store, topology.epoch + 1, undefined)
    else this.#voter.moveTo(topology.epoch + 1)
    this.#options.changed?.(topology, before?.topology)
    this.#conclude()
    this.#pursue()
  }

  #sync(): void {
    this.#nextSyncMs = this.#nowMs + this.#about(this.#parameters.syncIntervalMs)
    const others = this.#epoch?.topology.members.filter(({ nodeId }) => nodeId !== this.#options.nodeId) ?? []
    if (others.length > 0) this.#sendHave(others[this.#options.random.u32() % others.length]!.address)
    else if (this.#epoch === undefined) for (const seed of this.#seeds) this.#sendHave(seed)
  }

  #sendHave(address: string): void {
    this.#send(address, { type: 'have', epoch: this.#epoch?.topology.epoch ?? 0, digest: this.digest })
  }

  #sendNews(address: string, since: number): void {
    this.#send(address, this.#newsSince(since))
  }

  /** What has changed since an epoch, or all there is, whichever is less. */
  #newsSince(since: number): ChainContent {
    const { topology, bytes, digest } = this.#epoch!
    const known = this.#history.find((epoch) => epoch.topology.epoch === since)
    const delta = known === undefined ? undefined : encodeDelta(known.topology, known.digest, topology, digest)
    if (delta === undefined || delta.length >= bytes.length) return { type: 'whole', value: bytes }
    return { type: 'delta', value: delta }
  }

  /** Tells the members of the epoch before, and of this one. */
  #tellAll(before: Topology): void {
    const members = [...before.members, ...this.#epoch!.topology.members]
    const addresses = new Map(members.map(({ nodeId, address }) => [nodeId, address]))
    addresses.delete(this.#options.nodeId)
    const news = this.#newsSince(before.epoch)
    for (const address of addresses.values()) this.#send(address, news)
  }

  // Voting.

  #hearRequest(from: string, epoch: number, request: ChainRequest): void {
    const { topology } = this.#epoch!
    if (epoch <= topology.epoch) return this.#sendNews(from, epoch - 1)
    // Who lags is told what it lacks, and asked again then.
    if (epoch > topology.epoch + 1) return this.#sendHave(from)
    this.#vote(epoch, request, (reply) => this.#send(from, { type: 'reply', epoch, reply }))
  }

  #vote(epoch: number, request: ChainRequest, answer: (reply: ChainReply) => void): void {
    const { topology } = this.#epoch!
    if (this.#voter!.epoch !== epoch || !topology.voters.includes(this.#options.nodeId)) return
    if (request.type === 'accept' && !isSuccessor(topology, request.value)) return
    this.#voter!.ask(request, answer)
  }

  // Proposing.

  /** Proposes the first change that waits, where none is proposed. */
  #pursue(): void {
    while (this.#proposal === undefined && this.#adopting === 0 && this.#queue.length > 0) {
      const pending = this.#queue[0]!
      const { topology } = this.#epoch!
      const outcome = pending.apply(topology)
      if (isRefusal(outcome)) {
        this.#settle(pending, { type: 'refused', refusal: outcome })
        continue
      }
      assert(outcome.epoch === topology.epoch + 1, 'A change makes the next epoch')
      this.#propose(pending, encodeTopology(signed(outcome, pending.change)))
    }
  }

  #propose(pending: PendingChange, value: Uint8Array): void {
    const { topology } = this.#epoch!
    this.#proposal = {
      pending,
      epoch: topology.epoch + 1,
      value,
      proposer: new Proposer(this.#options.nodeId, topology.voters, value, this.#counter),
      isStoring: false,
      isOut: false,
      nextMs: this.#nowMs,
      resends: 0,
      defeats: 0,
    }
    this.#begin(this.#proposal)
  }

  /** Begins with a new ballot, which is stored first: after a restart it must not be used for another value. */
  #begin(proposal: Proposal): void {
    proposal.proposer.begin()
    proposal.resends = 0
    proposal.isStoring = true
    this.#counter = proposal.proposer.counter
    this.#options.store.save({ ballot: encodeCounter(this.#counter) }, (error) => {
      proposal.isStoring = false
      if (this.#proposal !== proposal) return
      proposal.nextMs = this.#nowMs + this.#about(this.#parameters.resendMs)
      if (error === undefined) this.#ask(proposal)
      else proposal.resends = this.#parameters.resendsMax
    })
  }

  /** Sends to all voters what they are to be asked now. */
  #ask(proposal: Proposal): void {
    const { request } = proposal.proposer
    if (request === undefined) return
    const { topology } = this.#epoch!
    const { epoch } = proposal
    const { nodeId } = this.#options
    if (request.type === 'accept' && request.value === proposal.value) proposal.isOut = true
    for (const member of topology.members) {
      if (member.nodeId !== nodeId && topology.voters.includes(member.nodeId))
        this.#send(member.address, { type: 'request', epoch, request })
    }
    // The own vote comes last: it may decide.
    if (topology.voters.includes(nodeId)) this.#vote(epoch, request, (reply) => this.#hearReply(nodeId, epoch, reply))
  }

  #hearReply(voter: string, epoch: number, reply: ChainReply): void {
    const proposal = this.#proposal
    if (proposal?.epoch !== epoch || proposal.isStoring) return
    const { proposer } = proposal
    const told = reply.type === 'promised' ? reply.accepted : undefined
    if (told !== undefined && !isSuccessor(this.#epoch!.topology, told.value)) return
    const wasAsking = proposer.request !== undefined
    if (proposer.receive(voter, reply)) {
      if (proposer.isDecided) return this.#decided(proposer.decision!)
      proposal.resends = 0
      return this.#ask(proposal)
    }
    if (wasAsking && proposer.request === undefined) {
      const { backoffMs, backoffMsMax } = this.#parameters
      proposal.nextMs = this.#nowMs + this.#about(Math.min(backoffMsMax, backoffMs * 2 ** proposal.defeats))
      proposal.defeats++
    }
  }

  #decided(value: Uint8Array): void {
    const before = this.#epoch!.topology
    const topology = decodeTopology(value)
    assert(topology?.epoch === before.epoch + 1, 'Voters accept only successors')
    this.#adopt(topology, value, (error) => {
      if (error === undefined && this.#epoch!.topology.epoch === topology.epoch) this.#tellAll(before)
    })
  }

  /** What has become of the proposal in the epoch that is there now. */
  #conclude(): void {
    const proposal = this.#proposal
    const { topology } = this.#epoch!
    if (proposal === undefined || proposal.epoch > topology.epoch) return
    this.#counter = Math.max(this.#counter, proposal.proposer.counter)
    this.#proposal = undefined
    const { pending } = proposal
    if (topology.changes.includes(pending.change)) return this.#settle(pending, { type: 'decided', topology })
    // Where it lost, it is applied again; where it cannot be known, it must not be.
    const isNamed = proposal.epoch > topology.epoch - topology.changes.length
    if (!isNamed && proposal.isOut)
      this.#settle(pending, failed('TIMEOUT', 'The change may have been made or not', 'unknown'))
  }

  /** Asks again, or begins anew. */
  #goOn(): void {
    const proposal = this.#proposal
    if (proposal === undefined || proposal.isStoring || this.#nowMs < proposal.nextMs) return
    if (proposal.proposer.isDecided) return this.#decided(proposal.proposer.decision!)
    const { resendMs, resendsMax } = this.#parameters
    if (proposal.proposer.request === undefined || proposal.resends >= resendsMax) return this.#begin(proposal)
    proposal.resends++
    proposal.nextMs = this.#nowMs + this.#about(resendMs)
    this.#ask(proposal)
  }

  /** Gives up changes whose time is over. */
  #endLate(): void {
    for (const pending of this.#queue.filter(({ deadlineMs }) => this.#nowMs >= deadlineMs)) {
      const isOut = this.#proposal?.pending === pending && this.#proposal.isOut
      if (this.#proposal?.pending === pending) {
        this.#counter = Math.max(this.#counter, this.#proposal.proposer.counter)
        this.#proposal = undefined
      }
      const why = 'No majority of the voters has decided the change in time'
      this.#settle(pending, failed('TIMEOUT', why, isOut ? 'unknown' : 'none'))
    }
  }

  #settle(pending: PendingChange, outcome: ChangeOutcome): void {
    this.#queue = this.#queue.filter((other) => other !== pending)
    pending.done(outcome)
  }

  // Tools.

  #send(address: string, content: ChainContent): void {
    const clusterId = this.#epoch?.topology.clusterId ?? noId
    this.#options.send(address, encodeChainMessage({ ...content, clusterId, sender: this.#options.nodeId }))
  }

  /** A time give or take a half, so that nodes are not in step. */
  #about(ms: number): number {
    return ms * (0.5 + this.#options.random.u32() / 2 ** 32)
  }

  #newChange(): string {
    return Array.from({ length: 2 }, () => this.#options.random.u32().toString(16).padStart(8, '0')).join('')
  }
}

function epochOf(topology: Topology, bytes: Uint8Array): Epoch {
  return { topology, bytes, digest: digestOfBytes(bytes) }
}

/** Whether a value can be the epoch after: all that a voter looks at. */
function isSuccessor({ clusterId, epoch }: Topology, value: Uint8Array): boolean {
  const next = decodeTopology(value)
  return next?.clusterId === clusterId && next.epoch === epoch + 1
}

function failed(
  code: 'TIMEOUT' | 'OVERLOADED' | 'NOT_READY',
  message: string,
  outcome: 'none' | 'unknown' = 'none',
): ChangeOutcome {
  return { type: 'failed', error: new SunwiseError(code, message, { outcome }) }
}

function rowOf<Value>(name: string, value: Value | undefined): Value {
  if (value !== undefined) return value
  throw new SunwiseError('CATALOG_CORRUPT', `Cannot read row "${name}" of the topology; restore a backup`)
}
