/**
 * Who is in the cluster, and who of them answers: SWIM (Das, Gupta, Motivala, 2002) with Lifeguard (Dadgar, Phillips, Currey, 2018),
 * with the parameters of hashicorp/memberlist.
 *
 *   probe      every interval one member, in random order round by round; where it does not answer in time, three others are asked
 *              to ping it; where that brings nothing either by the end of the interval, it is suspected
 *   suspect    told to all, and to itself with the next ping; it says that it is alive under a higher incarnation, or is taken for
 *              dead when the suspicion ends (suspicion.ts)
 *   awareness  0 when all is well; each probe of one's own that fails, and each suspicion against oneself, raises it, since the fault may
 *              be here; it stretches one's own intervals and timeouts
 *   gossip     news travel with probes and answers, and to a few random members five times a second while there are any
 *   push-pull  now and then with one member, and with one that is taken for dead: digests first, and whole lists where they differ
 *
 * Dead is not removed: a member stays in the list, and whatever was placed on it stays placed, until `forget`. This object spreads what
 * it hears and decides nothing about ownership. Whoever was paused itself convicts nobody: the time of the pause counts for no deadline.
 *
 * An object without a thread, clock or socket: `receive` and `tick` move it, `send` carries what it says. Bytes per member and second
 * do not depend on the number of members.
 */
import { assert } from '../../base/assert.ts'
import type { Random } from '../../env.ts'
import {
  decodeMessage,
  encodeMessage,
  headBytesMax,
  type MemberState,
  type MembershipMessage,
  type MemberUpdate,
  updateBytes,
} from './messages.ts'
import { confirmationsWanted, type SuspicionOptions, suspicionMs } from './suspicion.ts'
import { UpdateQueue } from './update-queue.ts'

export type MembershipParameters = {
  /** A member is probed each so many milliseconds, and has so long to answer before others are asked. */
  readonly probeIntervalMs: number
  readonly probeTimeoutMs: number
  /** Members that are asked to ping one that does not answer. */
  readonly indirectProbes: number
  readonly suspicionMultiplier: number
  readonly suspicionMaxMultiplier: number
  /** Least suspicion where nobody else can confirm it. */
  readonly smallClusterSuspicionMs: number
  /** A suspicion that others confirmed does not grow beyond this with the cluster. */
  readonly suspicionLeastMsMax: number
  readonly gossipIntervalMs: number
  readonly gossipFanout: number
  /** News are sent this many times log10(n), rounded up. */
  readonly retransmitMultiplier: number
  /** The dead hear gossip for so long, in case they are not. */
  readonly gossipToTheDeadMs: number
  readonly pushPullIntervalMs: number
  /** Awareness stays below this. */
  readonly awarenessMax: number
  readonly datagramBytesMax: number
  /** A tick that comes later than this tells of a pause of this process. */
  readonly pauseMs: number
}

export const membershipDefaults: MembershipParameters = {
  probeIntervalMs: 1000,
  probeTimeoutMs: 500,
  indirectProbes: 3,
  suspicionMultiplier: 4,
  suspicionMaxMultiplier: 6,
  smallClusterSuspicionMs: 8000,
  suspicionLeastMsMax: 11_000,
  gossipIntervalMs: 200,
  gossipFanout: 3,
  retransmitMultiplier: 4,
  gossipToTheDeadMs: 30_000,
  pushPullIntervalMs: 30_000,
  awarenessMax: 8,
  datagramBytesMax: 1400,
  pauseMs: 1000,
}

export type Member = {
  readonly nodeId: string
  readonly address: string
  readonly state: MemberState
  readonly incarnation: number
  /** When it came to its state, as this node heard. */
  readonly sinceMs: number
}

export type MembershipOptions = {
  readonly nodeId: string
  readonly address: string
  /** Above every one that this node had before; `stored` makes each new one durable. */
  readonly incarnation: number
  readonly random: Random
  readonly nowMs: number
  readonly parameters?: Partial<MembershipParameters>
  /** Sends bytes to an address; a stream takes any length and arrives or not, a datagram may be lost. */
  send(address: string, bytes: Uint8Array, kind: 'datagram' | 'stream'): void
  /** A member came or changed its state. */
  changed?(member: Member, before: MemberState | undefined): void
  /** This node has a new incarnation, to be stored. */
  refuted?(incarnation: number): void
}

type Suspicion = {
  readonly startMs: number
  readonly confirmedBy: Set<string>
  readonly wanted: number
  shiftMs: number
}

type Known = {
  nodeId: string
  address: string
  state: MemberState
  incarnation: number
  sinceMs: number
  suspicion: Suspicion | undefined
}

type Probe = {
  readonly target: Known
  readonly sequence: number
  indirectAtMs: number
  endMs: number
  /** Others that were asked to ping it, and those of them that said they heard nothing. */
  asked: number
  nacks: number
}

/** A ping on behalf of somebody else. */
type Relay = { readonly requester: string; readonly sequence: number; nackAtMs: number; endMs: number }

const relaysMax = 1024
/** Members that a random choice looks at, at the most. */
const looksMax = 32

export class Membership {
  readonly #options: MembershipOptions
  readonly #parameters: MembershipParameters
  readonly #self: Known
  readonly #members = new Map<string, Known>()
  /** All but this node. */
  #others: Known[] = []
  readonly #suspects = new Set<Known>()
  /** Members that are alive or suspected, this node among them: those that news have to reach. */
  #reachable = 1
  readonly #queue: UpdateQueue<MemberUpdate>
  readonly #relays = new Map<number, Relay>()
  #order: Known[] = []
  #probe: Probe | undefined
  #sequence = 0
  #awareness = 0
  #nextProbeMs: number
  #nextGossipMs: number
  #nextPushPullMs: number
  #lastTickMs: number
  #seeds: readonly string[] = []
  #isLeaving = false

  constructor(options: MembershipOptions) {
    const { nodeId, address, incarnation, nowMs } = options
    this.#options = options
    this.#parameters = { ...membershipDefaults, ...options.parameters }
    this.#self = { nodeId, address, state: 'alive', incarnation, sinceMs: nowMs, suspicion: undefined }
    this.#members.set(nodeId, this.#self)
    this.#queue = new UpdateQueue(this.#parameters.retransmitMultiplier)
    this.#lastTickMs = nowMs
    // Members do not probe in step.
    this.#nextProbeMs = nowMs + this.#below(this.#parameters.probeIntervalMs)
    this.#nextGossipMs = nowMs + this.#below(this.#parameters.gossipIntervalMs)
    this.#nextPushPullMs = nowMs + this.#below(this.#parameters.pushPullIntervalMs)
    this.#announce(this.#self, nodeId)
  }

  get incarnation(): number {
    return this.#self.incarnation
  }

  /** 0: all is well here. */
  get awareness(): number {
    return this.#awareness
  }

  /** All that are known, this node among them. */
  get members(): readonly Member[] {
    return [...this.#members.values()].map(memberOf)
  }

  member(nodeId: string): Member | undefined {
    const known = this.#members.get(nodeId)
    return known === undefined ? undefined : memberOf(known)
  }

  /** Whether a member is known and not suspected of being down. */
  isAlive(nodeId: string): boolean {
    return this.#members.get(nodeId)?.state === 'alive'
  }

  /** Asks these addresses who is there, now and again while nobody has answered. */
  join(seeds: readonly string[], nowMs: number): void {
    this.#seeds = seeds
    for (const seed of seeds) this.#pull(seed)
    this.#nextPushPullMs = nowMs + this.#parameters.probeIntervalMs
  }

  /** Says good-bye: others take this node for left at once, without suspecting it. */
  leave(): void {
    this.#isLeaving = true
    this.#self.state = 'left'
    this.#announce(this.#self, this.#self.nodeId)
    for (const member of this.#pickRandom(this.#parameters.gossipFanout * 2, isReachable)) this.#gossipTo(member)
  }

  /** The topology has removed this member: it is not spoken of any more. */
  forget(nodeId: string): void {
    assert(nodeId !== this.#self.nodeId, 'A node does not forget itself')
    const member = this.#members.get(nodeId)
    if (member === undefined) return
    this.#members.delete(nodeId)
    this.#others = this.#others.filter((other) => other !== member)
    this.#order = this.#order.filter((other) => other !== member)
    this.#suspects.delete(member)
    if (isReachable(member)) this.#reachable--
    if (this.#probe?.target === member) this.#probe = undefined
  }

  /** Every 20 to 100 ms. */
  tick(nowMs: number): void {
    const passedMs = nowMs - this.#lastTickMs
    this.#lastTickMs = nowMs
    if (passedMs > this.#parameters.pauseMs) this.#wasPaused(passedMs, nowMs)
    this.#endSuspicions(nowMs)
    this.#relay(nowMs)
    this.#goOnProbing(nowMs)
    if (nowMs >= this.#nextProbeMs) this.#beginProbe(nowMs)
    if (nowMs >= this.#nextGossipMs) {
      this.#nextGossipMs = nowMs + this.#parameters.gossipIntervalMs
      this.#gossip(nowMs)
    }
    if (nowMs >= this.#nextPushPullMs) this.#pushPull(nowMs)
  }

  /** Takes a message; what is none is passed over. `from` is the address to answer to. */
  receive(from: string, bytes: Uint8Array, nowMs: number): void {
    const message = decodeMessage(bytes)
    if (message === undefined || message.sender === this.#self.nodeId) return
    for (const update of message.updates) this.#hear(update, nowMs)
    switch (message.type) {
      case 'ping':
        if (message.target === this.#self.nodeId)
          this.#send(from, { type: 'ack', sequence: message.sequence }, 'datagram')
        return
      case 'pingRequest':
        this.#pingFor(from, message, nowMs)
        return
      case 'ack':
        this.#acknowledged(message.sequence)
        return
      case 'nack':
        if (this.#probe?.sequence === message.sequence) this.#probe.nacks++
        return
      case 'pull':
        if (message.digest !== this.#digest()) this.#sendState(from, true)
        return
      case 'state':
        if (message.wantsAnswer) this.#sendState(from, false)
        return
      default:
    }
  }

  // News.

  #hear(update: MemberUpdate, nowMs: number): void {
    if (update.nodeId === this.#self.nodeId) return this.#hearOfSelf(update)
    const known = this.#members.get(update.nodeId)
    if (known === undefined) return this.#meet(update, nowMs)
    switch (update.state) {
      case 'alive':
        if (update.incarnation > known.incarnation) this.#change(known, update, nowMs)
        return
      case 'suspect':
        this.#hearSuspicion(known, update, nowMs)
        return
      default:
        if (update.incarnation < known.incarnation || known.state === 'dead' || known.state === 'left') return
        this.#change(known, update, nowMs)
    }
  }

  #meet(update: MemberUpdate, nowMs: number): void {
    const { nodeId, address, incarnation } = update
    const known: Known = { nodeId, address, incarnation, state: 'left', sinceMs: nowMs, suspicion: undefined }
    this.#members.set(nodeId, known)
    this.#others.push(known)
    // It takes its place in the round that is under way.
    const place = this.#below(this.#order.length + 1)
    this.#order.splice(place, 0, known)
    this.#change(known, update, nowMs, true)
  }

  #hearSuspicion(known: Known, update: MemberUpdate, nowMs: number): void {
    if (update.incarnation < known.incarnation || known.state === 'dead' || known.state === 'left') return
    if (known.state === 'alive' || update.incarnation > known.incarnation) return this.#change(known, update, nowMs)
    const suspicion = known.suspicion!
    if (suspicion.confirmedBy.has(update.from) || suspicion.confirmedBy.size > suspicion.wanted) return
    suspicion.confirmedBy.add(update.from)
    // Others count this confirmation, too.
    this.#queue.add(update, updateBytes(update))
  }

  /** What others say of this node is refuted, unless it is true. */
  #hearOfSelf({ state, incarnation }: MemberUpdate): void {
    const isTrue = state === this.#self.state && incarnation <= this.#self.incarnation
    if (isTrue || incarnation < this.#self.incarnation || this.#isLeaving) return
    this.#self.incarnation = incarnation + 1
    this.#options.refuted?.(this.#self.incarnation)
    if (state !== 'alive') this.#worsen(1)
    this.#announce(this.#self, this.#self.nodeId)
  }

  #change(known: Known, update: MemberUpdate, nowMs: number, isNew = false): void {
    const before = isNew ? undefined : known.state
    if (isReachable(known)) this.#reachable--
    if (isReachable(update)) this.#reachable++
    known.state = update.state
    known.incarnation = update.incarnation
    known.address = update.address
    known.sinceMs = nowMs
    known.suspicion = undefined
    this.#suspects.delete(known)
    if (update.state === 'suspect') {
      const wanted = confirmationsWanted(this.#reachable, this.#suspicionOptions())
      known.suspicion = { startMs: nowMs, confirmedBy: new Set([update.from]), wanted, shiftMs: 0 }
      this.#suspects.add(known)
    }
    this.#announce(known, update.from)
    if (before !== known.state) this.#options.changed?.(memberOf(known), before)
  }

  #announce({ nodeId, state, incarnation, address }: Known, from: string): void {
    const update = { nodeId, state, incarnation, from, address }
    this.#queue.add(update, updateBytes(update))
  }

  // Probes.

  #beginProbe(nowMs: number): void {
    const { probeIntervalMs, probeTimeoutMs } = this.#parameters
    const factor = this.#awareness + 1
    this.#nextProbeMs = nowMs + probeIntervalMs * factor
    if (this.#probe !== undefined) this.#probeFailed(this.#probe, nowMs)
    const target = this.#nextTarget()
    if (target === undefined) return
    const sequence = this.#nextSequence()
    const indirectAtMs = nowMs + probeTimeoutMs * factor
    this.#probe = { target, sequence, indirectAtMs, endMs: this.#nextProbeMs, asked: 0, nacks: 0 }
    this.#ping(target, sequence, 'datagram')
  }

  /** Random order, and each member once before any comes again: so the time to detection is bounded, not only its mean. */
  #nextTarget(): Known | undefined {
    for (let rounds = 0; rounds < 2; rounds++) {
      while (this.#order.length > 0) {
        const member = this.#order.pop()!
        if (isReachable(member)) return member
      }
      this.#order = this.#shuffled([...this.#others])
    }
    return undefined
  }

  #ping(target: Known, sequence: number, kind: 'datagram' | 'stream'): void {
    // Who is suspected hears it first, so that it can say that it is alive.
    const told = target.state === 'suspect' ? [this.#updateOf(target)] : []
    this.#send(target.address, { type: 'ping', sequence, target: target.nodeId }, kind, told)
  }

  #goOnProbing(nowMs: number): void {
    const probe = this.#probe
    if (probe === undefined || nowMs < probe.indirectAtMs) return
    if (nowMs >= probe.endMs) {
      this.#probe = undefined
      this.#probeFailed(probe, nowMs)
      return
    }
    if (probe.asked > 0) return
    const { target, sequence } = probe
    const helpers = this.#pickRandom(
      this.#parameters.indirectProbes,
      (member) => member.state === 'alive' && member !== target,
    )
    probe.asked = Math.max(1, helpers.length)
    const request = { type: 'pingRequest', sequence, target: target.nodeId, address: target.address } as const
    for (const helper of helpers) this.#send(helper.address, request, 'datagram')
    // A path that carries streams may stand where datagrams are lost.
    this.#ping(target, sequence, 'stream')
  }

  #probeFailed({ target, asked, nacks }: Probe, nowMs: number): void {
    if (this.#members.get(target.nodeId) !== target) return
    // Helpers that said nothing at all tell of a fault on this side.
    this.#worsen(asked > 0 ? Math.max(0, asked - nacks) : 1)
    if (target.state !== 'alive') {
      if (target.state === 'suspect')
        this.#hearSuspicion(target, { ...this.#updateOf(target), from: this.#self.nodeId }, nowMs)
      return
    }
    this.#change(target, { ...this.#updateOf(target), state: 'suspect', from: this.#self.nodeId }, nowMs)
  }

  /** An answer to a ping of this node, from its target or through a helper. */
  #acknowledged(sequence: number): void {
    const relay = this.#relays.get(sequence)
    if (relay !== undefined) {
      this.#relays.delete(sequence)
      this.#send(relay.requester, { type: 'ack', sequence: relay.sequence }, 'datagram')
      return
    }
    if (this.#probe?.sequence !== sequence) return
    this.#probe = undefined
    this.#awareness = Math.max(0, this.#awareness - 1)
  }

  #pingFor(requester: string, message: MembershipMessage & { readonly type: 'pingRequest' }, nowMs: number): void {
    if (this.#relays.size >= relaysMax) return
    const sequence = this.#nextSequence()
    const { probeTimeoutMs } = this.#parameters
    this.#relays.set(sequence, {
      requester,
      sequence: message.sequence,
      nackAtMs: nowMs + 0.8 * probeTimeoutMs,
      endMs: nowMs + 4 * probeTimeoutMs,
    })
    this.#send(message.address, { type: 'ping', sequence, target: message.target }, 'datagram')
  }

  #relay(nowMs: number): void {
    for (const [sequence, relay] of this.#relays) {
      if (nowMs >= relay.endMs) this.#relays.delete(sequence)
      else if (nowMs >= relay.nackAtMs) {
        relay.nackAtMs = Number.POSITIVE_INFINITY
        this.#send(relay.requester, { type: 'nack', sequence: relay.sequence }, 'datagram')
      }
    }
  }

  #endSuspicions(nowMs: number): void {
    if (this.#suspects.size === 0) return
    const options = this.#suspicionOptions()
    for (const member of this.#suspects) {
      const suspicion = member.suspicion!
      const confirmations = suspicion.confirmedBy.size - 1
      const endMs = suspicion.startMs + suspicion.shiftMs + suspicionMs(this.#reachable, confirmations, options)
      if (nowMs < endMs) continue
      this.#change(member, { ...this.#updateOf(member), state: 'dead', from: this.#self.nodeId }, nowMs)
    }
  }

  /** Answers that came during a pause may still lie unread: nothing is concluded from their absence. */
  #wasPaused(passedMs: number, nowMs: number): void {
    for (const { suspicion } of this.#suspects) suspicion!.shiftMs += passedMs
    this.#probe = undefined
    this.#relays.clear()
    this.#nextProbeMs = nowMs + this.#parameters.probeIntervalMs
    this.#worsen(1)
  }

  // Gossip and push-pull.

  #gossip(nowMs: number): void {
    if (this.#queue.length === 0) return
    const { gossipFanout, gossipToTheDeadMs } = this.#parameters
    const hears = (member: Known): boolean =>
      isReachable(member) || (member.state === 'dead' && nowMs - member.sinceMs < gossipToTheDeadMs)
    for (const member of this.#pickRandom(gossipFanout, hears)) this.#gossipTo(member)
  }

  #gossipTo(member: Known): void {
    if (this.#queue.length > 0) this.#send(member.address, { type: 'gossip' }, 'datagram')
  }

  #pushPull(nowMs: number): void {
    const [partner] = this.#pickRandom(1, isReachable)
    const { pushPullIntervalMs, probeIntervalMs } = this.#parameters
    this.#nextPushPullMs = nowMs + (partner === undefined ? probeIntervalMs : pushPullIntervalMs)
    if (partner !== undefined) this.#pull(partner.address)
    else for (const seed of this.#seeds) this.#pull(seed)
    // Both sides of a partition take the other for dead: without this they would never speak again.
    for (const lost of this.#pickRandom(1, ({ state }) => state === 'dead')) this.#pull(lost.address)
  }

  #pull(address: string): void {
    this.#send(address, { type: 'pull', digest: this.#digest() }, 'stream')
  }

  #sendState(address: string, wantsAnswer: boolean): void {
    const updates = [...this.#members.values()].map((member) => this.#updateOf(member))
    const message = { type: 'state', wantsAnswer, sender: this.#self.nodeId, updates } as const
    this.#options.send(address, encodeMessage(message), 'stream')
  }

  /** Equal for nodes that know the same; the order in which they learned it does not count. */
  #digest(): string {
    let low = 0
    let high = 0
    for (const { nodeId, incarnation, state } of this.#members.values()) {
      let hash = 0x811c9dc5 ^ incarnation
      for (const text of [nodeId, state]) {
        for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
      }
      hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
      low = (low + hash) >>> 0
      high = (high + Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)) >>> 0
    }
    return high.toString(16).padStart(8, '0') + low.toString(16).padStart(8, '0')
  }

  // Tools.

  #send(
    address: string,
    head: DistributiveOmit<MembershipMessage, 'sender' | 'updates'>,
    kind: 'datagram' | 'stream',
    first: readonly MemberUpdate[] = [],
  ): void {
    const used = first.reduce((sum, update) => sum + updateBytes(update), headBytesMax)
    const news = this.#queue.take(this.#parameters.datagramBytesMax - used, this.#reachable)
    const message = { ...head, sender: this.#self.nodeId, updates: [...first, ...news] } as MembershipMessage
    this.#options.send(address, encodeMessage(message), kind)
  }

  #updateOf({ nodeId, state, incarnation, address }: Known): MemberUpdate {
    return { nodeId, state, incarnation, from: this.#self.nodeId, address }
  }

  #worsen(by: number): void {
    this.#awareness = Math.min(this.#parameters.awarenessMax - 1, this.#awareness + by)
  }

  #suspicionOptions(): SuspicionOptions {
    const { suspicionMultiplier, suspicionMaxMultiplier, probeIntervalMs } = this.#parameters
    const { smallClusterSuspicionMs, suspicionLeastMsMax } = this.#parameters
    return {
      multiplier: suspicionMultiplier,
      maxMultiplier: suspicionMaxMultiplier,
      probeIntervalMs,
      smallClusterMs: smallClusterSuspicionMs,
      leastMsMax: suspicionLeastMsMax,
    }
  }

  #nextSequence(): number {
    this.#sequence = (this.#sequence + 1) >>> 0
    return this.#sequence
  }

  #below(bound: number): number {
    return this.#options.random.u32() % Math.max(1, Math.floor(bound))
  }

  #shuffled(members: Known[]): Known[] {
    for (let last = members.length - 1; last > 0; last--) {
      const place = this.#below(last + 1)
      ;[members[last], members[place]] = [members[place]!, members[last]!]
    }
    return members
  }

  /** Up to `count` distinct others. In a large cluster it looks at a few at random, so that its cost does not grow with it. */
  #pickRandom(count: number, isWanted: (member: Known) => boolean): Known[] {
    const others = this.#others
    if (others.length <= looksMax) return this.#shuffled(others.filter(isWanted)).slice(0, count)
    const picked: Known[] = []
    for (let looks = 0; looks < looksMax && picked.length < count; looks++) {
      const member = others[this.#below(others.length)]!
      if (isWanted(member) && !picked.includes(member)) picked.push(member)
    }
    return picked
  }
}

type DistributiveOmit<Type, Keys extends PropertyKey> = Type extends unknown ? Omit<Type, Keys> : never

const isReachable = ({ state }: Pick<Known, 'state'>): boolean => state === 'alive' || state === 'suspect'

function memberOf({ nodeId, address, state, incarnation, sinceMs }: Known): Member {
  return { nodeId, address, state, incarnation, sinceMs }
}
