/**
 * A whole ring in one thread and one seed: the product's nodes over simulated networks, disks and clocks, clients that read and write, and
 * faults drawn by the seed. First faults and load together; then all is healed, load ends, and replicas must agree.
 */
import assert from 'node:assert/strict'
import type { SunwiseError } from '../../../src/base/errors.ts'
import type { BucketId } from '../../../src/base/ids.ts'
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { partitionOfKey } from '../../../src/cluster/slots.ts'
import { isAtRest } from '../../../src/cluster/topology/invariants.ts'
import { movesLeft, stageOfMoves } from '../../../src/cluster/topology/moves.ts'
import { readSet } from '../../../src/cluster/topology/replica-sets.ts'
import { type PartitionState, type Topology, votersOf } from '../../../src/cluster/topology/topology.ts'
import { encodeTopology } from '../../../src/cluster/topology/topology-bytes.ts'
import { changeMembers, type MemberChange, type NewMember } from '../../../src/cluster/topology/transitions.ts'
import { type Durability, Limits } from '../../../src/config.ts'
import type { Bucket, ListPage, ReadAnswer, WriteAnswer } from '../../../src/replication/requests.ts'
import { ActorRegistry } from '../../../src/versions/actor-registry.ts'
import { decodeSet } from '../../../src/versions/set-codec.ts'
import type { VersionSet } from '../../../src/versions/version-set.ts'
import { DotLedger } from './dot-ledger.ts'
import { EventQueue } from './event-queue.ts'
import { History, HistoryViolation } from './history.ts'
import { cutsOf, partitionShapes } from './partition-shapes.ts'
import { bytesQueuedMax, noFaults, SimNetwork } from './sim-network.ts'
import { SimNode } from './sim-node.ts'
import { TraceHash } from './trace-hash.ts'

/** Faults that take nothing that was acknowledged `sync` from any node. */
export const faultKinds = [
  'loss',
  'repeat',
  'flip',
  'delay',
  'clog',
  'partition',
  'kill',
  'power',
  'pause',
  'skew',
  'busy',
  'diskFull',
  'diskError',
] as const
/**
 * Faults that take what a node had acknowledged: they strike one node of a run, so that with a quorum of writes another one still
 * has it (the atlas of the design: at most W - 1 of the nodes that acknowledged a datum).
 */
export const losingKinds = ['lostWrites', 'lostDisk', 'oldSnapshot', 'bitRot'] as const
/** No fault, but more than that: members come and go. */
export const changeKinds = ['members'] as const
export type FaultKind = (typeof faultKinds)[number] | (typeof losingKinds)[number] | (typeof changeKinds)[number]

export type RingSimOptions = {
  readonly seed: string
  readonly nodes: number
  readonly operations: number
  readonly faults: readonly FaultKind[]
  /** The cluster is asked so often for other members at most; default: as often as faults are drawn. */
  readonly changesMax?: number
  /** Replicas per key; default 3, or as many as there are nodes. */
  readonly n?: number
  /** The first so many nodes are the cluster at first; the others may join. Default: all. */
  readonly members?: number
  readonly durability?: Durability
  readonly sloppy?: boolean
  /** Default: siblings. */
  readonly conflict?: 'siblings' | 'lww'
  /** Nodes have so little memory that data goes to tables all the time. */
  readonly hasTables?: boolean
  /** Keys that clients use; default: some dozens in four partitions. */
  readonly keys?: readonly string[]
  readonly clients?: number
  /** So many clients that list all keys again and again, in pages, each from another node; default: none. */
  readonly listers?: number
  /** Milliseconds between two exchanges of a node. */
  readonly exchangeRestMs?: number
  /** Of hints, exchanges and moves together, and bytes of hints; default: those of the product. */
  readonly repairBytesPerSecond?: number
  readonly hintBytesMax?: number
  /** Threads take the same time for every turn, so that who answers first does not hang on the seed. */
  readonly isSteady?: boolean
}

export type RingSimResult = {
  readonly seed: string
  readonly nodes: number
  readonly ops: number
  readonly acked: number
  readonly faults: Readonly<Record<string, number>>
  readonly hash: string
  readonly violations: readonly string[]
  readonly simulatedSeconds: number
  readonly wallSeconds: number
}

type Client = {
  readonly index: number
  /** A part of the keys, so that it often meets again what it saw; each key has several clients. */
  readonly keys: readonly string[]
  /** By key, what it saw last. */
  readonly seen: Map<string, { readonly context: Uint8Array | undefined; readonly values: readonly number[] }>
}

const bucketId = 1 as BucketId
const phaseTwoMs = 120_000
/** Moves of some changes, with nodes that come back and pauses before retries. */
const movesMs = 1_200_000
/** A node that was taken for dead by all is asked again now and then. */
const noticeMs = 300_000
const clientsDefault = 16
const thinkMsMax = 60
/** A client hears nothing of a node that died; a little after its deadline it gives up. */
const patienceMs = 1200
const usualKeys = 32
const keyShares = 4
const quietStepMs = 500
/** Between two lists of a client while nothing but moves is left. */
const quietListMs = 10_000
const oldNewsMs = 3000
const operationsPerLook = 4
/** Between the farthest jumps of a clock, back and forth. */
const jumpsMs = [2000, 7_200_000, 172_800_000]
/** With tables: more than memory holds, with values of so many bytes. */
const tableKeys = 500
const tableValueBytes = 100

export class RingSim {
  readonly options: RingSimOptions
  readonly random: SeededRandom
  readonly events = new EventQueue()
  readonly network: SimNetwork
  readonly nodes: SimNode[] = []
  readonly history = new History()
  readonly faultCounts: Record<string, number> = {}
  readonly bucket: Bucket
  readonly #keys: readonly string[]
  readonly #dots = new DotLedger()
  readonly #hash = new TraceHash()
  #started = 0
  #finished = 0
  acked = 0
  #isHealed = false
  #changesAsked = 0
  /** Lists that came to their ends. */
  listed = 0
  readonly #victim: number
  readonly violations: string[] = []
  readonly #byName = new Map<string, SimNode>()
  readonly #founds: Topology

  constructor(options: RingSimOptions) {
    this.options = options
    this.random = new SeededRandom(options.seed)
    this.network = new SimNetwork(this.events, this.random.fork('network'))
    this.bucket = {
      id: bucketId,
      name: 'default',
      n: Math.min(options.n ?? 3, options.nodes),
      r: 'quorum',
      w: 'quorum',
      sloppy: options.sloppy ?? false,
      conflict: options.conflict ?? 'siblings',
      durability: undefined,
      ttlMs: undefined,
      valueBytesMax: Limits.valueBytesDefault,
    }
    this.#victim = this.random.below(options.nodes)
    this.#keys =
      options.keys ??
      Array.from(
        { length: options.hasTables === true ? tableKeys : usualKeys },
        (_, index) => `{tag${index % 4}}key${index}`,
      )
    const names = Array.from({ length: options.nodes }, (_, index) => `n${index}`)
    const members = names.slice(0, options.members ?? names.length)
    this.#founds = topologyOf(members, this.bucket)
    for (const name of names) {
      this.nodes.push(
        new SimNode({
          nodeId: idOf(name),
          name,
          events: this.events,
          random: this.random.fork(name),
          durability: options.durability ?? 'sync',
          hasTables: options.hasTables ?? false,
          founds: members.includes(name) ? this.#founds : undefined,
          acceptor: acceptorOf(name),
          seeds: members,
          send: (to, bytes) => this.network.send(name, to, bytes),
          exchangeRestMs: options.exchangeRestMs ?? 100,
          repairBytesPerSecond: options.repairBytesPerSecond ?? Limits.repairBytesPerSecondDefault,
          hintBytesMax: options.hintBytesMax ?? Limits.hintBytesMax,
          isSteady: options.isSteady ?? false,
          died: (node) => this.#startLater(node),
        }),
      )
    }
    for (const node of this.nodes) this.#byName.set(node.name, node)
    this.network.deliver = (from, to, bytes) => {
      this.#note('m', from, to, bytes.length)
      this.#byName.get(to)?.receive({ nodeId: idOf(from), address: from }, bytes)
    }
  }

  /** Runs both phases and all checks. */
  run(): RingSimResult {
    const beganMs = performance.now()
    try {
      this.start()
      const clients = this.options.clients ?? clientsDefault
      for (let index = 0; index < clients; index++) this.#next(this.#client(index))
      for (let index = 0; index < (this.options.listers ?? 0); index++)
        this.#listAgain(this.random.fork(`lister ${index}`))
      if (this.options.faults.length > 0) this.#planFault()
      this.#runUntil(() => this.#finished >= this.options.operations, 3_600_000)
      this.#heal()
      this.#settle()
      const mayMiss = this.bucket.sloppy || losingKinds.some((kind) => this.options.faults.includes(kind))
      const final = this.#finalValues()
      if ((this.options.listers ?? 0) > 0) this.#checkFinalList(final)
      this.history.check(final, !mayMiss)
    } catch (error) {
      if (!(error instanceof Error)) throw error
      this.violations.push(error instanceof HistoryViolation ? error.message : (error.stack ?? error.message))
    }
    return {
      seed: this.options.seed,
      nodes: this.options.nodes,
      ops: this.#finished,
      acked: this.acked,
      faults: this.faultCounts,
      hash: this.#hash.hex,
      violations: this.violations,
      simulatedSeconds: Math.round(this.events.nowMs) / 1000,
      wallSeconds: Math.round(performance.now() - beganMs) / 1000,
    }
  }

  /** The run is over and its result taken: the next one has its memory. */
  dispose(): void {
    for (const node of this.nodes) node.dispose()
  }

  /** Starts all nodes. */
  start(): void {
    for (const node of this.nodes) node.start()
  }

  /** Lets time pass. */
  pass(durationMs: number): void {
    const endMs = this.events.nowMs + durationMs
    while (this.events.step(endMs));
    this.events.nowMs = endMs
  }

  /** Lets time pass until something holds. False: it does not after so long. */
  passUntil(isDone: () => boolean, limitMs: number): boolean {
    const endMs = this.events.nowMs + limitMs
    while (!isDone()) if (!this.events.step(endMs)) return false
    return true
  }

  #runUntil(isDone: () => boolean, limitMs: number): void {
    if (this.passUntil(isDone, limitMs)) return
    throw new Error(`stuck: ${this.#finished} of ${this.options.operations} operations`)
  }

  /** The latest topology that a node which is up goes by. */
  get topology(): Topology {
    const known = this.nodes.flatMap((node) => (node.isUp ? (node.node.topology ?? []) : []))
    return known.sort((a, b) => b.epoch - a.epoch)[0] ?? this.#founds
  }

  /** Nodes that hold a key, the preferred first. */
  replicasOf(key: string): readonly SimNode[] {
    return readSet(this.topology.partitions[partitionOf(key)]!, this.bucket.n).map(
      (nodeId) => this.#byName.get(nameOf(nodeId))!,
    )
  }

  /** Where a key lies, and where it moves to. */
  placeOf(key: string): PartitionState {
    return this.topology.partitions[partitionOf(key)]!
  }

  /** Asks some node that is up for a change of the cluster; what becomes of it is its affair. */
  changeMembers(changes: readonly MemberChange[]): void {
    const up = this.nodes.filter((node) => node.isUp && node.node.topology !== undefined)
    if (up.length > 0)
      this.random.pick(up).act((node) =>
        node.change(
          (before) => changeMembers(before, changes),
          () => {},
        ),
      )
  }

  join(name: string): void {
    this.changeMembers([{ type: 'join', ...this.#joiner(name) }])
  }

  /** As one that asks for itself: it says under which id it votes. */
  #joiner(name: string): NewMember {
    const joiner = this.#byName.get(name)!
    return { nodeId: idOf(name), address: name, acceptor: joiner.isUp ? joiner.node.chain.acceptor : undefined }
  }

  leave(name: string): void {
    this.changeMembers([{ type: 'leave', nodeId: idOf(name) }])
  }

  /** Names of the members, in the order in which they joined. */
  get memberNames(): readonly string[] {
    return this.topology.members.map(({ nodeId }) => nameOf(nodeId))
  }

  /** Lets time pass until every node that is up knows which of the others are. */
  passUntilNoticed(): void {
    assert.ok(
      this.passUntil(() => this.#isNoticed, noticeMs),
      'Nodes do not notice who is there',
    )
  }

  get #isNoticed(): boolean {
    return this.nodes.every(
      (node) =>
        !node.isUp ||
        node.node.topology === undefined ||
        this.nodes.every((other) => other === node || node.node.membership.isAlive(other.nodeId) === other.isUp),
    )
  }

  /** Where the cluster stands, for a message of a failed test. */
  explain(): string {
    const { epoch, members, batch, voters } = this.topology
    const nodes = this.nodes.map((each) => {
      if (!each.isUp) return `${each.name} down`
      const { keeper, topology } = each.node
      const { epoch: goesBy, isDone } = keeper.progress
      return `${each.name} at ${topology?.epoch} goes by ${goesBy}${isDone ? ', done' : ''}, ${keeper.leftOver.length} left over`
    })
    const standings = members.map(({ nodeId, state }) => `${nameOf(nodeId)} ${state}`)
    return [
      `epoch ${epoch}, ${stageOfMoves(this.topology)} in batch ${batch}, ${movesLeft(this.topology)} moves left`,
      `members ${standings.join(', ')}; voters ${voters.map(nameOf).join(', ')}`,
      ...nodes,
    ].join('; ')
  }

  /** Whether nothing moves, and all nodes that are up and in the cluster know that. */
  get isAtRest(): boolean {
    const { topology } = this
    return (
      isAtRest(topology) &&
      this.nodes.every(
        (each) =>
          !each.isUp ||
          !topology.members.some(({ nodeId }) => nodeId === each.nodeId) ||
          each.node.topology?.epoch === topology.epoch,
      )
    )
  }

  // Clients.

  #client(index: number): Client {
    const shared = this.#keys.filter((_, place) => (Math.floor(place / 4) + index) % keyShares === 0)
    return { index, keys: this.#keys.length < usualKeys ? this.#keys : shared, seen: new Map() }
  }

  #next(client: Client): void {
    if (this.#started >= this.options.operations || this.#isHealed) return
    this.#started++
    this.events.after(this.random.fraction() * thinkMsMax, () => this.#operate(client))
  }

  #operate(client: Client): void {
    const { random } = this
    const key = random.pick(client.keys)
    const up = this.nodes.filter((node) => node.isUp && node.node.topology !== undefined)
    if (up.length === 0) {
      this.events.after(50, () => this.#operate(client))
      return
    }
    const at = random.pick(up)
    const draw = random.below(100)
    const known = client.seen.get(key)
    let isAnswered = false
    const answered = (note: () => void): void => {
      if (isAnswered) return
      isAnswered = true
      note()
      this.#finished++
      if (this.#finished % operationsPerLook === 0) this.#lookAt(key)
      this.#next(client)
    }
    if (draw < 45 || (known === undefined && draw < 70)) this.#get(at, client, key, answered)
    else {
      // Most write with what they saw last; some replace whatever is there.
      const isBlind = draw >= 82 && draw % 2 === 0
      this.#write(at, client, key, draw < 90 ? 'put' : 'delete', isBlind ? undefined : known, answered)
    }
  }

  #get(at: SimNode, client: Client, key: string, answered: (note: () => void) => void): void {
    const beganMs = this.events.nowMs
    this.#giveUp(answered, () => {})
    at.act((node) =>
      node.coordinator.get(this.bucket, bytesOf(key), { timeoutMs: 1000 }, (error, answer) =>
        answered(() => {
          this.#note('r', key, error?.code ?? '', answer?.values.length ?? 0)
          if (answer === undefined) return
          const values = valuesOf(answer)
          this.history.reads.push({ key, values, beganMs, endedMs: this.events.nowMs })
          client.seen.set(key, { context: answer.context, values })
        }),
      ),
    )
  }

  #write(
    at: SimNode,
    client: Client,
    key: string,
    kind: 'put' | 'delete',
    known: { readonly context: Uint8Array | undefined; readonly values: readonly number[] } | undefined,
    answered: (note: () => void) => void,
  ): void {
    const hasContext = known?.context !== undefined
    const seen = hasContext ? this.history.coveredBy(known.values) : undefined
    const record = this.history.begin(key, kind, seen, this.events.nowMs)
    const done = (error: SunwiseError | undefined, answer: WriteAnswer | undefined): void => {
      if (answer !== undefined) {
        record.outcome = 'acked'
        record.endedMs = this.events.nowMs
      } else if (error?.outcome === 'none') record.outcome = 'none'
      answered(() => {
        this.#note('w', key, error?.code ?? '', record.id)
        if (answer !== undefined) this.acked++
      })
    }
    this.#giveUp(answered, () => {})
    const options = { timeoutMs: 1000, context: hasContext ? known.context : undefined }
    at.act(({ coordinator }) => {
      if (kind === 'put') coordinator.put(this.bucket, bytesOf(key), this.#valueOf(record.id), options, done)
      else coordinator.delete(this.bucket, bytesOf(key), options, done)
    })
    client.seen.delete(key)
  }

  // Lists.

  /** Until all is healed and nothing moves any more. */
  #listAgain(random: SeededRandom): void {
    if (this.#isHealed && this.isAtRest) return
    const prefix = random.pick(['', '', '{tag1}', '{tag2}key1', '{tag'])
    const options = { prefix, values: random.chance(3, 4), limitMax: random.pick([1, 3, 10, 100]) }
    const beganMs = this.events.nowMs
    this.#listAll(random, options, (shown) => {
      if (shown !== undefined) {
        this.listed++
        for (const key of this.#keys) {
          if (!key.startsWith(prefix)) continue
          this.history.lists.push({ key, shown: shown.get(key) ?? [], beganMs, endedMs: this.events.nowMs })
        }
      }
      const restMs = this.#isHealed ? quietListMs : thinkMsMax
      this.events.after(random.fraction() * restMs, () => this.#listAgain(random))
    })
  }

  /** All keys with a prefix, page by page, each page from another node; undefined where some page failed again and again. */
  #listAll(
    random: SeededRandom,
    { prefix, values, limitMax }: { readonly prefix: string; readonly values: boolean; readonly limitMax: number },
    done: (shown: Map<string, readonly number[] | 'present'> | undefined) => void,
  ): void {
    const shown = new Map<string, readonly number[] | 'present'>()
    let triesLeft = 10
    const page = (cursor: Uint8Array | undefined): void => {
      const up = this.nodes.filter((node) => node.isUp && node.node.topology !== undefined)
      let isAnswered = false
      const answered = (error: SunwiseError | undefined, answer: ListPage | undefined): void => {
        if (isAnswered) return
        isAnswered = true
        this.#note('l', prefix, error?.code ?? '', answer?.keys.length ?? 0)
        if (answer === undefined) {
          if (error !== undefined) assert.equal(error.outcome, 'none')
          if (triesLeft-- === 0) return done(undefined)
          this.events.after(random.fraction() * 500, () => page(cursor))
          return
        }
        for (const { key, answer: read } of answer.keys) {
          const text = decoder.decode(key)
          if (shown.has(text)) throw new HistoryViolation(`list: ${text} twice`)
          if (!text.startsWith(prefix)) throw new HistoryViolation(`list: ${text} with prefix ${prefix}`)
          shown.set(text, read === undefined ? 'present' : valuesOf(read))
        }
        if (answer.cursor === undefined) done(shown)
        else page(answer.cursor)
      }
      this.events.after(patienceMs, () => answered(undefined, undefined))
      if (up.length === 0) return
      const limit = random.between(1, limitMax)
      const options = { prefix: bytesOf(prefix), limit, values, cursor, timeoutMs: 1000 }
      random.pick(up).act(({ coordinator }) => coordinator.list(this.bucket, options, answered))
    }
    page(undefined)
  }

  /** When all is healed, a list shows what all replicas have. */
  #checkFinalList(final: ReadonlyMap<string, readonly number[]>): void {
    let listed: Map<string, readonly number[] | 'present'> | undefined
    this.#listAll(this.random.fork('final list'), { prefix: '', values: true, limitMax: 7 }, (shown) => {
      listed = shown
    })
    this.#runUntil(() => listed !== undefined, 60_000)
    for (const [key, values] of final) {
      const shown = listed!.get(key)
      const sorted = shown === undefined || shown === 'present' ? [] : [...shown].sort()
      assert.deepEqual(sorted, [...values].sort(), `A list shows ${key} as its replicas have it`)
    }
  }

  /** Looks at what some node has of a key, also of a write that nobody ever sees. */
  #lookAt(key: string): void {
    this.random.pick(this.nodes).act((node) =>
      node.replica.read(bucketId, bytesOf(key), 1000, (_, found) => {
        if (found !== undefined) this.#noteDots(key, found.set)
      }),
    )
  }

  #noteDots(key: string, set: Uint8Array): void {
    const wrong = this.#dots.note(key, set)
    if (wrong !== undefined) this.violations.push(wrong)
  }

  /** Whatever waits has a bound, and is within it. */
  #checkLimits(): void {
    for (const { name, node } of this.nodes.filter(({ isUp }) => isUp)) {
      const { coordinator, replica, hints } = node
      const isWithin =
        coordinator.pendingCount <= Limits.pendingRequestsMax &&
        replica.pendingCount <= Limits.pendingRequestsMax &&
        hints.bytes <= Limits.hintBytesMax
      assert.ok(isWithin, `Of ${name} more waits than may`)
    }
    assert.ok(this.network.bytesUnderWay <= bytesQueuedMax, 'More is on its way than the network takes')
  }

  /** A number, and behind it what makes it large. */
  #valueOf(id: number): Uint8Array {
    return bytesOf(String(id).padEnd(this.options.hasTables === true ? tableValueBytes : 0))
  }

  /** A client whose node died hears nothing. */
  #giveUp(answered: (note: () => void) => void, note: () => void): void {
    this.events.after(patienceMs, () => answered(note))
  }

  // Faults.

  #planFault(): void {
    this.events.after(20 + this.random.fraction() * 500, () => {
      if (this.#isHealed) return
      this.#checkLimits()
      this.#strike(this.random.pick(this.options.faults))
      this.#planFault()
    })
  }

  #strike(kind: FaultKind): void {
    const { random } = this
    const isLosing = losingKinds.some((losing) => losing === kind)
    const node = isLosing ? this.nodes[this.#victim]! : random.pick(this.nodes)
    this.faultCounts[kind] = (this.faultCounts[kind] ?? 0) + 1
    this.#note('f', kind, node.name, 0)
    switch (kind) {
      case 'loss':
        this.network.faults.lossOneIn = random.pick([0, 0, 3, 10, 50])
        break
      case 'repeat':
        this.network.faults.repeatOneIn = random.pick([0, 2, 5, 50])
        break
      case 'flip':
        this.network.faults.flipOneIn = random.pick([0, 0, 5, 40])
        break
      case 'delay':
        // Each message by its own draw: they pass each other.
        this.network.faults.delayMsMax = random.pick([0, 5, 50, 400])
        break
      case 'clog':
        this.#clogSome(node.name)
        break
      case 'partition':
        this.#cutSome()
        break
      case 'kill':
      case 'power':
        this.#stop(node, () => (kind === 'power' ? node.cutPower() : node.kill()))
        break
      case 'lostWrites':
        this.#stop(node, () => node.cutPower())
        break
      case 'lostDisk':
        this.#stop(node, () => node.loseDisk())
        break
      case 'oldSnapshot':
        this.#snapshot(node)
        break
      case 'bitRot':
        this.#rot(node)
        break
      case 'diskFull':
        node.disk.capacityBytes = node.disk.usedBytes + random.below(4096)
        this.events.after(random.fraction() * 3000, () => {
          node.disk.capacityBytes = Number.POSITIVE_INFINITY
        })
        break
      case 'busy':
        node.refusalOneIn = random.pick([2, 5, 50])
        this.events.after(random.fraction() * 3000, () => {
          node.refusalOneIn = 0
        })
        break
      case 'diskError':
        if (node.isUp) node.failDisk()
        break
      case 'pause':
        if (node.isUp) node.pause(random.fraction() * 4000)
        break
      case 'members':
        this.#changeSome()
        break
      case 'skew':
        node.clock.jumpEpoch((random.fraction() - 0.5) * random.pick(jumpsMs))
        node.clock.setRate(random.pick([1, 0.9 + random.fraction() * 0.2, 0.5 + random.fraction() * 1.5]))
        break
    }
  }

  /**
   * Somebody joins, leaves, is replaced or weighs more or less, or two of these at once, where enough stay that no quorum hangs on who has
   * no vote.
   */
  #changeSome(): void {
    const { random, memberNames } = this
    const others = random.shuffle(this.nodes.map(({ name }) => name).filter((name) => !memberNames.includes(name)))
    // Who is on the way in or out is left alone.
    const settled = this.topology.members.filter(({ state }) => state === 'normal')
    const present = random.shuffle(settled.map(({ nodeId }) => nameOf(nodeId)))
    const changes: MemberChange[] = []
    let stay = present.length
    for (let left = random.pick([1, 1, 2]); left > 0; left--) {
      const kind = random.pick(['join', 'join', 'leave', 'leave', 'replace', 'weight'] as const)
      const other = others.at(-1)
      const member = present.at(-1)
      if (kind === 'join' && other !== undefined) {
        changes.push({ type: 'join', ...this.#joiner(others.pop()!) })
      } else if (kind === 'leave' && member !== undefined && stay > this.bucket.n) {
        changes.push({ type: 'leave', nodeId: idOf(present.pop()!) })
        stay--
      } else if (kind === 'replace' && other !== undefined && member !== undefined) {
        const joiner = this.#joiner(others.pop()!)
        changes.push({ type: 'replace', leaver: idOf(present.pop()!), joiner })
      } else if (member !== undefined) {
        changes.push({ type: 'adjust', nodeId: idOf(present.pop()!), weight: random.pick([1, 1, 2, 3]) })
      }
    }
    if (changes.length === 0 || this.#changesAsked >= (this.options.changesMax ?? Infinity)) return
    this.#changesAsked++
    this.changeMembers(changes)
  }

  #stop(node: SimNode, stop: () => void): void {
    if (!node.isUp) return
    stop()
    this.#startLater(node)
  }

  /** One node after the other is stopped and comes back; a node that is down stays down. */
  stopEachInTurn(how: 'kill' | 'power', downMs = 200, betweenMs = 2000): void {
    for (const node of this.random.shuffle([...this.nodes])) {
      if (!node.isUp) continue
      if (how === 'power') node.cutPower()
      else node.kill()
      this.pass(downMs)
      if (!node.isUp) node.start()
      this.pass(betweenMs)
    }
  }

  #startLater(node: SimNode): void {
    this.events.after(50 + this.random.fraction() * 4000, () => {
      if (!node.isUp) node.start()
    })
  }

  /** Messages wait: on one link, or on all of a node, which get free one after the other. */
  #clogSome(name: string): void {
    const { random, network } = this
    const others = this.nodes.filter((other) => other.name !== name).map((other) => other.name)
    const clogged = random.chance(1, 2) ? others : [random.pick(others.length > 0 ? others : [name])]
    for (const other of clogged) {
      network.clog(name, other, random.fraction() * 1500)
      if (random.chance(1, 2)) network.clog(other, name, random.fraction() * 1500)
    }
  }

  /** Some links are cut; mended after a while. */
  #cutSome(): void {
    const { random, network } = this
    const shape = random.pick(partitionShapes)
    if (shape === 'mend') return network.mend()
    for (const [from, to] of cutsOf(shape, random.shuffle(this.nodes.map(({ name }) => name)))) network.cut(from, to)
    this.events.after(200 + random.fraction() * 4000, () => network.mend())
  }

  /** A copy is made of what a node has on its disk, or the node has the copy that was made before, and nothing that it did since. */
  #snapshot(node: SimNode): void {
    if (!node.isUp) return
    if (!node.hasSnapshot || this.random.chance(1, 3)) node.takeSnapshot()
    else this.#stop(node, () => node.restoreSnapshot())
  }

  /** Bits of a file flip. Who starts from what it finds damaged, or has anything of it in the end, gets an empty disk. */
  #rot(node: SimNode): void {
    if (node.isUp && node.rot()) this.#stop(node, () => node.kill())
  }

  // The end.

  #heal(): void {
    this.#isHealed = true
    this.network.mend()
    this.network.faults = { ...noFaults }
    for (const node of this.nodes) {
      if (node.isRotten) node.loseDisk()
      node.disk.capacityBytes = Number.POSITIVE_INFINITY
      node.disk.heal()
      node.refusalOneIn = 0
      if (!node.isUp) node.start()
    }
    // Moves, operations under way, retries and hints come to their ends.
    const movesEndMs = this.events.nowMs + movesMs
    while (!this.isAtRest) {
      assert.ok(this.events.nowMs < movesEndMs, `The moves under way do not end: ${this.explain()}`)
      this.pass(quietStepMs)
    }
    // Who is paused still is taken for dead soon, and comes back after that; and what was sent before, of who is dead, arrives.
    this.passUntil(() => this.nodes.every((node) => !node.isPaused), noticeMs)
    this.pass(oldNewsMs)
    this.passUntilNoticed()
    this.#passUntilQuiet(20_000)
  }

  /** Operations and hints come to their ends, within so long. */
  #passUntilQuiet(limitMs: number): void {
    const endMs = this.events.nowMs + limitMs
    const isQuiet = (): boolean =>
      this.#isNoticed &&
      this.nodes.every(
        ({ node: { coordinator, hints } }) => coordinator.pendingCount === 0 && hints.count === 0 && !hints.isLoading,
      )
    // Who waits for an answer has it or knows that there is none; and what was sent has come.
    do this.pass(quietStepMs)
    while (!isQuiet() && this.events.nowMs < endMs)
  }

  /** Replicas find by themselves what differs; then reads of all of them find nothing to repair, and nothing is under way. */
  #settle(): void {
    const endMs = this.events.nowMs + phaseTwoMs
    const firsts = [...new Map(this.#keys.map((key) => [partitionOf(key), key])).values()]
    const pairsOf = ({ node: { keeper } }: SimNode): number =>
      keeper.held.reduce((pairs, { partition, others }) => pairs + (keeper.isTouched(partition) ? others.length : 0), 0)
    const sum = (of: (node: SimNode['node']) => number): number =>
      this.nodes.reduce((total, { node }) => total + of(node), 0)
    for (let before = -1; this.bucket.n > 1; ) {
      const differing = sum(({ exchanges }) => exchanges.differing)
      if (differing === before) break
      before = differing
      // Each node compares each of its partitions with each of the others, twice.
      const targets = this.nodes.map(
        (each) => each.node.exchanges.ended - each.node.exchanges.partial + 2 * pairsOf(each),
      )
      const isThrough = (): boolean =>
        this.nodes.every(({ node: { exchanges } }, index) => exchanges.ended - exchanges.partial >= targets[index]!)
      assert.ok(this.passUntil(isThrough, endMs - this.events.nowMs), 'Replicas do not converge by exchanges')
    }
    if (!this.options.faults.includes('members')) {
      // Exchanges go round: whoever compared what nobody wrote would be late with what somebody did.
      const written = new Set(firsts.map(partitionOf))
      for (const { name, node } of this.nodes)
        assert.ok(
          node.keeper.held.every(({ partition }) => written.has(partition) || !node.keeper.isTouched(partition)),
          `${name} compares partitions that nobody wrote to`,
        )
    }
    // Who was suspected wrongly has been heard again.
    this.passUntilNoticed()
    let pending = 0
    for (const key of this.#keys) {
      pending++
      const at = this.random.pick(this.nodes)
      at.act((node) =>
        node.coordinator.get(this.bucket, bytesOf(key), { r: 'all', timeoutMs: 5000 }, (error, answer) => {
          pending--
          if (error !== undefined)
            throw new Error(`A read of all replicas failed when all was healed: ${error.message}`)
          // A delete that all have may be forgotten by one before the other.
          if (answer!.values.length === 0) return
          assert.equal(answer!.receipt.repaired ?? 0, 0, `A read found ${key} to repair after exchanges were through`)
        }),
      )
    }
    this.#runUntil(() => pending === 0, 20_000)
    this.#passUntilQuiet(15_000)
    this.#checkAgreement()
    for (const { name, node } of this.nodes) {
      assert.equal(node.coordinator.pendingCount, 0, `${name} has operations left`)
      assert.equal(node.coordinator.pendingBytes, 0, `${name} counts bytes of operations that ended`)
      assert.equal(node.hints.count, 0, `${name} has hints left`)
      const isResting = (): boolean => node.exchanges.isResting && node.replica.pendingCount === 0
      assert.ok(this.passUntil(isResting, 20_000), `${name} has something under way for ever`)
      assert.equal(node.hints.isLoading, false, `${name} has hints left that were not read back`)
    }
  }

  /** All members go by one topology, to the last partition, and none has anything left to hand over. */
  #checkAgreement(): void {
    const members = this.nodes.filter(({ name }) => this.memberNames.includes(name))
    const { topology } = members[0]!.node
    const bytes = encodeTopology(topology!)
    for (const { name, node } of members) {
      const isSame = node.topology === topology || Buffer.compare(encodeTopology(node.topology!), bytes) === 0
      assert.ok(isSame, `${name} goes by another topology of epoch ${node.topology?.epoch}`)
      assert.deepEqual(node.keeper.leftOver, [], `${name} has something left to hand over`)
    }
  }

  /** Live values by key, after a look at every replica's own bytes. */
  #finalValues(): Map<string, readonly number[]> {
    const final = new Map<string, readonly number[]>()
    const actors = new ActorRegistry()
    for (const key of this.#keys) {
      let first: string | undefined
      for (const node of this.replicasOf(key)) {
        const bytes = this.held(node, key)
        this.#noteDots(key, bytes)
        const set = decodeSet(bytes, 0, bytes.length, actors.indexOf)
        assert.ok(typeof set !== 'string')
        const values = set.versions.filter(({ tombstone }) => !tombstone).map(({ value }) => numberOf(value))
        const text = values.length === 0 ? 'deleted' : versionsText(set, actors)
        first ??= text
        assert.equal(text, first, `Replicas differ on ${key}, ${node.name} among them`)
        final.set(key, values)
      }
      this.#note('e', key, first ?? '', 0)
    }
    return final
  }

  /** What a node has of a key, encoded. */
  held(at: SimNode, key: string): Uint8Array {
    let held: Uint8Array | undefined
    at.act((node) =>
      node.replica.read(bucketId, bytesOf(key), 1000, (_, found) => {
        held = found?.set
      }),
    )
    this.#runUntil(() => held !== undefined, 5000)
    return held!
  }

  #note(kind: string, first: string, second: string, number: number): void {
    this.#hash.note(kind, this.events.nowMs, first, second, number)
  }
}

/** The versions of a set. Not its vector: of what every replica had and forgot, one may know longer than another. */
function versionsText({ versions }: VersionSet, actors: ActorRegistry): string {
  const texts = versions.map(
    ({ actor, counter, tombstone, value }) =>
      `${actors.highOf(actor)}.${actors.lowOf(actor)}.${counter} ${tombstone} ${Buffer.from(value).toString('hex')}`,
  )
  return texts.sort().join('\n')
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

function bytesOf(text: string): Uint8Array {
  return encoder.encode(text)
}

function numberOf(value: Uint8Array): number {
  return Number(decoder.decode(value))
}

function valuesOf(answer: ReadAnswer): number[] {
  return answer.values.map(({ value }) => numberOf(value))
}

function partitionOf(key: string): number {
  return partitionOfKey(bytesOf(key))
}

/** Node `n3` has the id 4: none is 0. */
export function idOf(name: string): string {
  return (Number(name.slice(1)) + 1).toString(16).padStart(16, '0')
}

/** Under which a node votes as long as it has lost nothing. */
export function acceptorOf(name: string): string {
  return (Number(name.slice(1)) + 1).toString(16).padStart(16, 'a')
}

export function nameOf(nodeId: string): string {
  return `n${Number.parseInt(nodeId, 16) - 1}`
}

/** A cluster of these nodes at rest: each partition lies on the next `n` of them. */
function topologyOf(names: readonly string[], bucket: Bucket): Topology {
  const members = names.map((name) => ({
    nodeId: idOf(name),
    address: name,
    weight: 1,
    zone: '',
    joinedAt: 1,
    state: 'normal' as const,
    replaces: undefined,
    acceptor: acceptorOf(name),
  }))
  return {
    clusterId: '00000000000000c1',
    epoch: 1,
    members,
    voters: votersOf(members),
    buckets: [{ ...bucket, valueBytesMax: undefined }],
    nextBucketId: bucketId + 1,
    batch: 0,
    isPlanDue: false,
    partitions: Array.from({ length: Limits.partitions }, (_, partition) => {
      const copies = Math.min(bucket.n, members.length)
      const list = Array.from({ length: copies }, (_, place) => members[(partition + place) % names.length]!.nodeId)
      return { stage: 'stable', old: list, new: list, since: 1, fence: 1 }
    }),
    changes: [],
  }
}
