/**
 * The chain of epochs, as one node keeps it: the latest topology it knows to be decided, a vote on the next, and changes that it proposes.
 *
 *   deciding    epoch e+1 is one instance of Paxos (../paxos.ts) among the voters that epoch e names. Who proposes has epoch e, durably; who
 *               votes, too (chain-voter.ts). Whoever finds that a majority accepted adopts the epoch and tells all members
 *   changes     a change is a pure function of the topology. Where another epoch is decided first, it is applied again to that one, or
 *               dropped with its refusal. A random number names it in the epoch that it made, so that it is known to be in the chain
 *               exactly once, whoever brought it through (proposals.ts)
 *   catching up `have` tells what a node has; who has more answers with what has changed, or all of it. Now and then to a random member, so
 *               that nothing that was lost stays lost. Who has nothing and was told whom to follow takes what it gets first
 *   forgetting  votes and ballots hold good only as long as they are remembered. A member is in the topology with the id of its memory, its
 *               acceptor, which names its ballots, too. Who comes back without it, from a lost disk, a backup or a copy, draws another one:
 *               under that it is barred from voting until an epoch names it, which it asks the voters for by itself, as any change. It
 *               has voted on nothing before that epoch, so that nothing that it forgot can be asked of it. To the others it is until then a
 *               voter that is down; where a majority is gone in this way only force helps. Who is the only member has nobody
 *               to ask: after some time in which nobody tells it otherwise, it names itself
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
import {
  type ChainContent,
  type ChainMessage,
  type ChainReply,
  type ChainRequest,
  decodeChainMessage,
  encodeChainMessage,
} from './chain-messages.ts'
import {
  type ChainRows,
  type ChainStore,
  decodeAcceptor,
  decodeCounter,
  decodeVote,
  encodeAcceptor,
} from './chain-store.ts'
import { ChainVoter } from './chain-voter.ts'
import { signed } from './plan.ts'
import {
  type ChangeDone,
  failed,
  isSuccessor,
  newChange,
  type ProposalParameters,
  Proposals,
  type TopologyChange,
} from './proposals.ts'
import { isRefusal } from './refusal.ts'
import type { Topology } from './topology.ts'
import {
  applyDelta,
  decodeTopology,
  deltaHead,
  digestOfBytes,
  encodeDelta,
  encodeTopology,
  noId,
} from './topology-bytes.ts'
import { nameAcceptor, withAcceptor } from './transitions.ts'

export type ChainParameters = ProposalParameters & {
  /** How often a member is told what this node has. */
  readonly syncIntervalMs: number
  /** Of the epochs that are heard of in passing one is asked for in so long. */
  readonly questionIntervalMs: number
}

export const chainDefaults: ChainParameters = {
  resendMs: 200,
  resendsMax: 4,
  backoffMs: 50,
  backoffMsMax: 2000,
  syncIntervalMs: 1000,
  questionIntervalMs: 50,
  changeTimeoutMs: 30_000,
}

/** What a forced epoch is ahead of the one before: more than anybody decides in the usual way before he hears of it. */
export const forcedEpochStep = 1_000_000

/** Who is the only member waits so many intervals for others that know more before it names its own acceptor. */
const soleIntervals = 5

export type ChainOptions = {
  readonly nodeId: string
  readonly random: Random
  readonly nowMs: number
  readonly store: ChainStore
  /** What the store holds. */
  readonly stored: ChainRows
  /** Where the rows are stored: in another place they are a copy, which may be old. Default: always the same. */
  readonly place?: string
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
  readonly #acceptor: string
  #isAcceptorDurable: boolean
  #isNaming = false
  /** When it may ask again, and when it may do without. */
  #nextNamingMs: number
  readonly #soleNamingMs: number
  readonly #proposals: Proposals
  #seeds: readonly string[] = []
  #nextSyncMs: number
  #nextQuestionMs = 0

  /** @throws CATALOG_CORRUPT where a stored row is none */
  constructor(options: ChainOptions) {
    const { stored, nowMs, store } = options
    this.#options = options
    this.#parameters = { ...chainDefaults, ...options.parameters }
    this.#nowMs = nowMs
    this.#nextSyncMs = nowMs
    this.#nextNamingMs = nowMs
    this.#soleNamingMs = nowMs + soleIntervals * this.#parameters.syncIntervalMs
    const remembered = rememberedAcceptor(options)
    this.#isAcceptorDurable = remembered !== undefined
    this.#acceptor = remembered ?? newChange(options.random)
    if (remembered === undefined) this.#saveAcceptor()
    this.#proposals = new Proposals({
      acceptor: this.#acceptor,
      random: options.random,
      store,
      parameters: this.#parameters,
      counter: stored.ballot === undefined ? 0 : rowOf('ballot', decodeCounter(stored.ballot)),
      present: () => (this.#adopting === 0 ? this.#epoch?.topology : undefined),
      ask: (epoch, voters, request) => this.#ask(epoch, voters, request),
      decided: (value) => this.#decided(value),
    })
    const vote = stored.vote === undefined ? undefined : rowOf('vote', decodeVote(stored.vote))
    if (stored.topology === undefined) return
    const topology = rowOf('topology', decodeTopology(stored.topology))
    this.#epoch = epochOf(topology, stored.topology)
    this.#voter = new ChainVoter(store, topology.epoch + 1, remembered === undefined ? undefined : vote)
  }

  /** The latest epoch that this node has; undefined before it has any. */
  get topology(): Topology | undefined {
    return this.#epoch?.topology
  }

  /** Of the present epoch; gossip may carry it. */
  get digest(): string {
    return this.#epoch?.digest ?? noId
  }

  /** Under which this node votes and proposes, once the topology says so. */
  get acceptor(): string {
    return this.#acceptor
  }

  /** Changes that wait, the one that is proposed among them. */
  get changesPending(): number {
    return this.#proposals.length
  }

  /** Begins a chain with a cluster of one, or of some that begin alike: then it names all their acceptors. */
  found(topology: Topology, done: (error: SunwiseError | undefined) => void): void {
    assert(this.#epoch === undefined && this.#adopting === 0, 'A node founds a cluster only where it has none')
    const { nodeId } = this.#options
    const isNamed = topology.members.find((member) => member.nodeId === nodeId)?.acceptor !== undefined
    const members = isNamed ? topology.members : withAcceptor(topology.members, nodeId, this.#acceptor)
    const founded = { ...topology, members }
    this.#adopt(founded, encodeTopology(founded), done)
  }

  /** Takes the chain that is heard of first from these addresses; asks them now and again. */
  follow(seeds: readonly string[]): void {
    this.#seeds = seeds
    this.#nextSyncMs = this.#nowMs
  }

  /** Somebody goes by this epoch: where it is news, it is asked for. */
  heardOf(epoch: number, address: string): void {
    if (epoch <= Math.max(this.#adopting, this.#epoch?.topology.epoch ?? 0) || this.#nowMs < this.#nextQuestionMs)
      return
    this.#nextQuestionMs = this.#nowMs + this.#parameters.questionIntervalMs
    this.#sendHave(address)
  }

  /** Brings a change into the chain, behind those that wait. `done` is called once. */
  change(apply: TopologyChange, done: ChangeDone): void {
    if (this.#epoch === undefined)
      return done(failed('NOT_READY', 'Cannot change the cluster: this node has not joined'))
    this.#proposals.add(apply, done, this.#nowMs)
  }

  /**
   * Makes an epoch without asking the voters. Only for people who know that a majority of them is gone for good: what those decide
   * all the same is thrown away.
   */
  force(apply: TopologyChange, done: ChangeDone): void {
    if (this.#epoch === undefined)
      return done(failed('NOT_READY', 'Cannot change the cluster: this node has not joined'))
    const { topology } = this.#epoch
    const members = withAcceptor(topology.members, this.#options.nodeId, this.#acceptor)
    const outcome = apply({ ...topology, members, epoch: topology.epoch + forcedEpochStep - 1, changes: [] })
    if (isRefusal(outcome)) return done({ type: 'refused', refusal: outcome })
    const forced = signed(outcome, newChange(this.#options.random))
    this.#adopt(forced, encodeTopology(forced), (error) => {
      if (error !== undefined) return done({ type: 'failed', error })
      this.#tellAll(topology)
      done({ type: 'decided', topology: forced })
    })
  }

  /** Every 20 to 100 ms. */
  tick(nowMs: number): void {
    this.#nowMs = nowMs
    this.#proposals.tick(nowMs)
    if (nowMs >= this.#nextSyncMs) this.#sync()
    this.#nameAcceptor()
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
        this.#proposals.receive(message.sender, message.epoch, message.reply, nowMs)
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
    this.#proposals.conclude(topology)
    this.#proposals.pursue()
  }

  #sync(): void {
    // Give or take a half: nodes are not in step.
    const share = 0.5 + this.#options.random.u32() / 2 ** 32
    this.#nextSyncMs = this.#nowMs + share * this.#parameters.syncIntervalMs
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
    const { nodeId } = this.#options
    if (this.#voter!.epoch !== epoch || !topology.voters.includes(nodeId)) return
    // Under this id it has never voted, under the one before it does not know what.
    if (!this.#isNamed(topology)) return answer({ type: 'barred', ballot: request.ballot })
    if (request.type === 'accept' && !isSuccessor(topology, request.value)) return
    this.#voter!.ask(request, answer)
  }

  #isNamed({ members }: Topology): boolean {
    return members.some(({ nodeId, acceptor }) => nodeId === this.#options.nodeId && acceptor === this.#acceptor)
  }

  #saveAcceptor(): void {
    this.#isNaming = true
    const row = encodeAcceptor({ id: this.#acceptor, place: this.#options.place ?? '' })
    this.#options.store.save({ acceptor: row }, (error) => {
      this.#isNaming = false
      this.#isAcceptorDurable = error === undefined
    })
  }

  /** Has the topology name the acceptor of this node where it names another one, or none. */
  #nameAcceptor(): void {
    const topology = this.#epoch?.topology
    if (topology === undefined || this.#isNaming || this.#nowMs < this.#nextNamingMs) return
    const { nodeId } = this.#options
    if (!topology.members.some((member) => member.nodeId === nodeId) || this.#isNamed(topology)) return
    this.#nextNamingMs = this.#nowMs + this.#parameters.syncIntervalMs
    if (!this.#isAcceptorDurable) return this.#saveAcceptor()
    const apply = (before: Topology): ReturnType<TopologyChange> => nameAcceptor(before, nodeId, this.#acceptor)
    if (topology.members.length === 1) {
      const outcome = apply(topology)
      if (this.#nowMs < this.#soleNamingMs || this.#adopting !== 0 || isRefusal(outcome)) return
      const named = signed(outcome, newChange(this.#options.random))
      return this.#adopt(named, encodeTopology(named))
    }
    this.#isNaming = true
    this.#proposals.add(
      apply,
      () => {
        this.#isNaming = false
      },
      this.#nowMs,
    )
  }

  // Proposing.

  #ask(epoch: number, voters: readonly string[], request: ChainRequest): void {
    const { nodeId } = this.#options
    for (const member of this.#epoch!.topology.members) {
      if (member.nodeId !== nodeId && voters.includes(member.nodeId))
        this.#send(member.address, { type: 'request', epoch, request })
    }
    // The own vote comes last: it may decide.
    if (!voters.includes(nodeId)) return
    this.#vote(epoch, request, (reply) => this.#proposals.receive(nodeId, epoch, reply, this.#nowMs))
  }

  #decided(value: Uint8Array): void {
    const before = this.#epoch!.topology
    const topology = decodeTopology(value)
    assert(topology?.epoch === before.epoch + 1, 'Voters accept only successors')
    this.#adopt(topology, value, (error) => {
      if (error === undefined && this.#epoch!.topology.epoch === topology.epoch) this.#tellAll(before)
    })
  }

  // Tools.

  #send(address: string, content: ChainContent): void {
    const clusterId = this.#epoch?.topology.clusterId ?? noId
    this.#options.send(address, encodeChainMessage({ ...content, clusterId, sender: this.#options.nodeId }))
  }
}

function epochOf(topology: Topology, bytes: Uint8Array): Epoch {
  return { topology, bytes, digest: digestOfBytes(bytes) }
}

/** The acceptor whose votes and ballots the stored rows are; undefined where they are lost or a copy. @throws CATALOG_CORRUPT */
function rememberedAcceptor({ stored, place = '' }: ChainOptions): string | undefined {
  if (stored.acceptor === undefined) return undefined
  const acceptor = rowOf('acceptor', decodeAcceptor(stored.acceptor))
  return acceptor.place === place ? acceptor.id : undefined
}

function rowOf<Value>(name: string, value: Value | undefined): Value {
  if (value !== undefined) return value
  throw new SunwiseError('CATALOG_CORRUPT', `Cannot read row "${name}" of the topology; restore a backup`)
}
