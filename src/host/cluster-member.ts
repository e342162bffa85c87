/**
 * A member of a cluster, on the node thread: runs `Node` over the doors, as thread 0 of the rings. It coordinates what clients ask of the
 * workers (member-client.ts), answers peers, and keeps buckets as the topology says.
 *
 * Whether it begins a cluster or joins one is decided here:
 *
 *   its catalog has a topology     it goes on as a member; where all addresses that it was given are of another cluster, it ends
 *   none, and nobody to join       it begins a cluster of one, of the data and buckets that it has
 *   none, and somebody to join     only with an empty directory: it waits until one of them answers (cluster/admission.ts), keeps id and key of
 *                                  that cluster, takes its topology, and has itself made a member
 */
import { SunwiseError } from '../base/errors.ts'
import { bucketIdOf } from '../base/ids.ts'
import { Admission, type ClusterIdentity, decodeAdmission } from '../cluster/admission.ts'
import { unevennessWarning } from '../cluster/fair-shares.ts'
import type { TopologyChange } from '../cluster/topology/proposals.ts'
import type { Refusal } from '../cluster/topology/refusal.ts'
import { copiesOf, type Topology, type TopologyBucket } from '../cluster/topology/topology.ts'
import { decodeTopology } from '../cluster/topology/topology-bytes.ts'
import {
  changeMembers,
  create,
  deleteBucket,
  forceRemove,
  type MemberChange,
  type NewMember,
  putBucket,
} from '../cluster/topology/transitions.ts'
import type { Config } from '../config.ts'
import type { Network } from '../env.ts'
import { admissionMessage, admissionOf, Node, type NodeOptions, type Peer } from '../node.ts'
import type { Bucket, BucketProperties } from '../replication/requests.ts'
import { FrameKind } from '../shard/command.ts'
import { clusterDocument, isAtRest, keyDocument, nodesDocument, ringDocument } from './cluster-report.ts'
import {
  type ClusterChange,
  type ClusterQuestion,
  decodeRequest,
  encodeAnswer,
  encodeBatchAnswer,
  type MemberRequest,
  memberFrameBytes,
  readMemberFrame,
  writeMemberFrame,
} from './member-frames.ts'
import type { ToThread } from './messages.ts'
import type { NodeHost } from './node-host.ts'
import type { StoredBucket } from './node-record.ts'
import { HostRandom } from './random.ts'
import { ThreadRuntime } from './thread-runtime.ts'
import { TurnLoop, turnMsMax } from './turn-loop.ts'

/** Carries messages to and from other nodes. */
export type Peers = Network & {
  /** Where others reach this node. */
  readonly address: string
  /** The node has joined this cluster: whoever is of another one is not talked to. */
  setCluster(clusterId: string, clusterKey: Uint8Array): void
  close(): Promise<void>
}

export type OpenPeers = (options: {
  readonly nodeId: string
  /** Undefined where the node has not joined one. */
  readonly cluster: ClusterIdentity | undefined
  readonly received: (from: Peer, bytes: Uint8Array) => void
  /** Told of each try to reach an address where a node of another cluster is: the two do not talk. */
  readonly estranged: (address: string) => void
}) => Promise<Peers>

export type ClusterMemberOptions = {
  readonly host: NodeHost
  readonly config: Config
  readonly openPeers: OpenPeers
  /** Addresses of members of the cluster that it is to be in. */
  readonly join: readonly string[]
  readonly zone: string
  /** The member whose place it takes when it joins; undefined: it takes its share of all. */
  readonly replaces?: string | undefined
  readonly log: (line: string) => void
  readonly onFatal: (error: SunwiseError) => void
  readonly node?: Partial<Pick<NodeOptions, 'membership' | 'exchangeRestMs'>> | undefined
}

const tickMs = 25
/** While data moves: what a move waits for is looked at with each tick. */
const movingTickMs = 5
/** How often nodes are asked how far they are with a move: nothing waits for an answer but the move. */
const moveAskIntervalMs = 50
/** Between two tries to become a member. */
const joinRetryMs = 1000
/** Milliseconds between two exchanges with other replicas. */
const exchangeRestMsDefault = 100
/** How often whoever waits is told what it waits for. */
const waitingNoteMs = 10_000

export class ClusterMember {
  readonly #options: ClusterMemberOptions
  readonly #runtime: ThreadRuntime
  readonly #loop: TurnLoop
  #timer: NodeJS.Timeout
  #peers: Peers | undefined
  #admission: Admission | undefined
  #node: Node | undefined
  /** Those of the addresses that it was given where nodes of another cluster are. */
  readonly #strangers = new Set<string>()
  /** By thread: how often it began anew. What an earlier run of it asked is answered to nobody. */
  readonly #runs: number[] = []
  /** The latest adoption of buckets. */
  #bucketsAdopted: Promise<void> = Promise.resolve()
  /** What was said last of how unevenly nodes are loaded. */
  #unevenness: string | undefined
  #adoptedBuckets: readonly TopologyBucket[] | undefined
  #isMember = false
  #isClosed = false
  #isMoving = false
  #isJoinUnderWay = false
  #nextJoinMs = 0
  #nextNoteMs = 0
  #joined: () => void = () => {}
  #failed: (error: SunwiseError) => void = () => {}
  /** Resolves when the node is a member of its cluster; rejects where it cannot become one. */
  readonly joined: Promise<void>

  /** Rejects with a coded error; then nothing is left running. */
  static async start(options: ClusterMemberOptions): Promise<ClusterMember> {
    const { host, join, openPeers } = options
    const stored = storedTopology(host)
    if (stored === undefined && join.length > 0 && !host.isEmpty) {
      const message =
        'Cannot join a cluster with data of its own: join with an empty directory, or start without --join'
      throw new SunwiseError('DIRECTORY_UNUSABLE', message)
    }
    if (stored === undefined && join.length === 0 && host.isJoining) {
      const message =
        'The node was told to join a cluster and has not yet: start it with --join, or with another directory'
      throw new SunwiseError('DIRECTORY_UNUSABLE', message)
    }
    const member = new ClusterMember(options)
    try {
      member.#peers = await openPeers({
        nodeId: host.identity.nodeId,
        cluster: stored === undefined && join.length > 0 ? undefined : identityOf(host),
        received: (from, bytes) => member.#receivePeer(from, bytes),
        estranged: (address) => member.#noteStranger(address),
      })
      member.#begin(stored)
      return member
    } catch (error) {
      await member.close()
      throw error
    }
  }

  private constructor(options: ClusterMemberOptions) {
    this.#options = options
    const { host } = options
    this.joined = new Promise((resolve, reject) => {
      this.#joined = resolve
      this.#failed = reject
    })
    this.joined.catch(() => {})
    const { seed } = host.attachFrontEnd({ post: (message) => this.#receiveHost(message) })
    this.#runtime = new ThreadRuntime(seed, () => {}, Buffer.allocUnsafe)
    const { links, bell } = this.#runtime
    this.#loop = new TurnLoop(links, bell, () => (links.drain(() => true, turnMsMax) > 0 ? 'worked' : 'idle'))
    links.handle(
      (thread, u8, i32, start) => this.#receiveAsk(thread, u8, i32, start),
      (u8, i32, start) => this.#node?.receiveReply(u8, i32, start),
      this.#loop.schedule,
    )
    this.#runtime.connect(seed)
    host.decideBuckets({
      put: (name, properties) => this.#putBucket(name, properties),
      delete: (name) => this.#deleteBucket(name),
    })
    this.#timer = setTimeout(() => this.#tick(), tickMs)
    this.#loop.schedule()
  }

  get topology(): Topology | undefined {
    return this.#node?.topology
  }

  /** Where others reach it. */
  get address(): string {
    return this.#peers!.address
  }

  /** Takes no more part. What was asked and not answered is left to the deadlines of those who asked. */
  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.#loop.stop()
    this.#node = undefined
    this.#admission = undefined
    await this.#peers?.close()
    this.#runtime.bell[Symbol.dispose]()
  }

  // Becoming a member.

  #begin(stored: Topology | undefined): void {
    const { host, join } = this.#options
    if (stored === undefined && join.length > 0) {
      this.#admission = this.#askAdmission(({ clusterId, clusterKey }) => {
        host.joinCluster(clusterId, clusterKey).then(
          () => {
            // The threads and files of a member that was closed meanwhile are gone.
            if (this.#isClosed) return
            this.#peers?.setCluster(clusterId, clusterKey)
            this.#startNode(undefined)
          },
          (error: unknown) => {
            if (!this.#isClosed) this.#fail(error)
          },
        )
      })
      return
    }
    this.#startNode(stored === undefined ? this.#founded() : undefined)
    // Whom it was told to join may be in another cluster by now, or ever since.
    if (stored !== undefined && join.length > 0) {
      this.#admission = this.#askAdmission(() => {
        this.#admission = undefined
      })
    }
  }

  /** One of the addresses that it was given says that it is of another cluster. Once all do, and nobody welcomed this node, it was a mistake. */
  #noteStranger(address: string): void {
    const { join, host } = this.#options
    if (this.#admission === undefined || this.#node === undefined || !join.includes(address)) return
    this.#strangers.add(address)
    if (this.#isClosed || !join.every((seed) => seed === this.#peers!.address || this.#strangers.has(seed))) return
    this.#admission = undefined
    const message = `Cannot join ${join.join(', ')}: the data directory belongs to cluster ${host.identity.clusterId}, and they to another one`
    this.#fail(new SunwiseError('DIRECTORY_UNUSABLE', message))
  }

  #askAdmission(admitted: ConstructorParameters<typeof Admission>[0]['admitted']): Admission {
    return new Admission({
      seeds: this.#options.join.filter((seed) => seed !== this.#peers!.address),
      send: (address, bytes) => this.#peers?.send(address, admissionMessage(bytes), 'stream'),
      admitted,
    })
  }

  /** A cluster of one, of what the node had before. */
  #founded(): Topology {
    const { host, zone } = this.#options
    const { buckets, below } = host.storedBuckets
    const topology = create({
      clusterId: host.identity.clusterId,
      member: { nodeId: host.identity.nodeId, address: this.#peers!.address, zone },
      buckets: [...buckets].sort((a, b) => a.id - b.id),
      nextBucketId: below,
    })
    if ('refused' in topology) throw new SunwiseError('BAD_CONFIG', topology.why)
    return topology
  }

  #startNode(founds: Topology | undefined): void {
    const { host, config, join } = this.#options
    const { links, readers, clock } = this.#runtime
    this.#admission = undefined
    this.#node = new Node({
      exchangeRestMs: exchangeRestMsDefault,
      moves: { askIntervalMs: moveAskIntervalMs },
      ...this.#options.node,
      nodeId: host.identity.nodeId,
      address: this.#peers!.address,
      clock,
      random: new HostRandom(),
      catalog: host.catalog,
      network: {
        datagramBytesMax: this.#peers!.datagramBytesMax,
        send: (address, bytes, kind) => this.#peers?.send(address, bytes, kind) ?? false,
      },
      shards: links,
      readerOf: (shard) => readers[shard]!,
      hashSeed: host.hashSeed,
      clusterKey: identityOf(host).clusterKey,
      durability: config.durability,
      valueBytesMax: config.valueBytesMax,
      founds,
      place: host.place,
      seeds: join.filter((seed) => seed !== this.#peers!.address),
      adopted: (topology) => this.#adopt(topology),
    })
    this.#loop.schedule()
  }

  /** The node goes by another epoch: so do the workers with its buckets. */
  #adopt(topology: Topology): void {
    this.#isMoving = !isAtRest(topology)
    const warning = unevennessWarning(topology.members.length, copiesOf(topology))
    if (warning !== undefined && warning !== this.#unevenness) this.#options.log(warning)
    this.#unevenness = warning
    if (topology.buckets !== this.#adoptedBuckets) {
      this.#adoptedBuckets = topology.buckets
      const buckets = topology.buckets.map((bucket): StoredBucket => ({ ...bucket, id: bucketIdOf(bucket.id) }))
      this.#bucketsAdopted = this.#options.host.adoptBuckets(buckets, topology.nextBucketId)
      this.#bucketsAdopted.catch((error: unknown) => this.#fail(error))
    }
  }

  #becomeMember(nowMs: number): void {
    const { host, join, zone, log } = this.#options
    const node = this.#node
    const topology = node?.topology
    const { nodeId } = host.identity
    const own = topology?.members.find((member) => member.nodeId === nodeId)
    const { address } = this.#peers!
    if (join.length > 0 && own === undefined) {
      if (nowMs >= this.#nextNoteMs) {
        this.#nextNoteMs = nowMs + waitingNoteMs
        log(`waiting for ${join.join(', ')} to let this node join the cluster`)
      }
    }
    if (node === undefined || topology === undefined || this.#isJoinUnderWay || nowMs < this.#nextJoinMs) return
    if (own === undefined && join.length === 0) {
      this.#isMember = true
      log(
        'this node is no member of its cluster any more: it passes requests on, and holds nothing; --join lets it in again',
      )
      this.#joined()
      return
    }
    let change: MemberChange | undefined
    if (own === undefined) change = this.#joining(node, { nodeId, address, zone, acceptor: node.chain.acceptor })
    else if (own.address !== address) change = { type: 'adjust', nodeId, address }
    if (change === undefined) return this.#enter()
    this.#isJoinUnderWay = true
    const wanted = change
    node.change(
      (before) => changeMembers(before, [wanted]),
      (outcome) => {
        this.#isJoinUnderWay = false
        this.#nextJoinMs = this.#runtime.clock.monotonicMs() + joinRetryMs
        if (outcome.type === 'failed') log(`cannot join the cluster yet: ${outcome.error.message}`)
        if (outcome.type === 'refused' && outcome.refusal.refused !== 'MEMBER_EXISTS') log(outcome.refusal.why)
      },
    )
  }

  #joining(node: Node, joiner: NewMember): MemberChange {
    const { replaces } = this.#options
    // Who has gone meanwhile has no place to take.
    if (replaces === undefined || !node.topology!.members.some(({ nodeId }) => nodeId === replaces))
      return { type: 'join', ...joiner }
    return { type: 'replace', leaver: replaces, isDown: !node.isAlive(replaces), joiner }
  }

  #enter(): void {
    this.#isMember = true
    this.#options.host.noteMember()
    this.#joined()
  }

  #fail(error: unknown): void {
    const failure =
      error instanceof SunwiseError ? error : new SunwiseError('INTERNAL', `The member failed: ${String(error)}`)
    this.#failed(failure)
    this.#options.onFatal(failure)
  }

  #tick(): void {
    const nowMs = this.#runtime.clock.monotonicMs()
    // After a pause answers may lie here that came in time: they are taken before deadlines are judged.
    this.#runtime.links.drain(() => true, turnMsMax)
    this.#admission?.tick(nowMs)
    this.#node?.tick()
    if (!this.#isMember) this.#becomeMember(nowMs)
    this.#loop.schedule()
    if (!this.#isClosed) this.#timer = setTimeout(() => this.#tick(), this.#isMoving ? movingTickMs : tickMs)
  }

  // What comes in.

  #receivePeer(from: Peer, bytes: Uint8Array): void {
    const admission = admissionOf(bytes)
    if (this.#admission !== undefined && admission !== undefined && decodeAdmission(admission)?.type === 'welcome')
      this.#admission.receive(admission)
    else this.#node?.receive(from, bytes)
    this.#loop.schedule()
  }

  #receiveHost(message: ToThread): void {
    this.#runtime.receive(message)
    if (message.type === 'shardDown') {
      this.#runs[message.shard + 1] = (this.#runs[message.shard + 1] ?? 0) + 1
      this.#node?.replica.shardDown(message.shard)
    }
    if (message.type === 'connect') this.#node?.shardRestarted()
    this.#loop.schedule()
  }

  #receiveAsk(thread: number, u8: Uint8Array, i32: Int32Array, start: number): void {
    const { requestId, payload } = readMemberFrame(u8, i32, start)
    const run = this.#runs[thread] ?? 0
    this.#carryOut(decodeRequest(payload), (answer) => {
      // Another run of the worker would take it for the answer to a request of its own.
      if ((this.#runs[thread] ?? 0) !== run) return
      const target = this.#runtime.links.beginTo(thread, memberFrameBytes(answer))
      if (target === undefined) return
      writeMemberFrame(target, FrameKind.answer, requestId, answer)
      this.#runtime.links.commitTo(thread)
    })
  }

  #carryOut(request: MemberRequest, answer: (payload: Uint8Array) => void): void {
    const node = this.#node
    const topology = node?.topology
    const fail = (error: SunwiseError): void => answer(encodeAnswer(error, undefined))
    if (node === undefined || topology === undefined) {
      return fail(new SunwiseError('NOT_READY', 'This node is not yet a member of a cluster'))
    }
    if (request.op === 'question') {
      const document = this.#tell(node, topology, request.question)
      return document instanceof SunwiseError ? fail(document) : answer(encodeAnswer(undefined, document))
    }
    if (request.op === 'change') return this.#change(node, request.change, answer)
    const bucket = node.bucket(request.bucketId)
    if (bucket === undefined) return fail(new SunwiseError('BUCKET_NOT_FOUND', 'There is no such bucket any more'))
    const { coordinator } = node
    const done = (error: SunwiseError | undefined, given: unknown): void => answer(encodeAnswer(error, given))
    switch (request.op) {
      case 'get':
        return coordinator.get(bucket, request.key, request.options, done)
      case 'put':
        return coordinator.put(bucket, request.key, request.value, request.options, done)
      case 'delete':
        return coordinator.delete(bucket, request.key, request.options, done)
      case 'batch':
        return coordinator.batch(bucket, request.operations, request.options, (error, results) => {
          if (results === undefined) done(error, undefined)
          else answer(encodeBatchAnswer(results))
        })
      case 'list':
        return coordinator.list(bucket, request.options, done)
    }
  }

  // The cluster.

  #tell(node: Node, topology: Topology, question: ClusterQuestion): Record<string, unknown> | SunwiseError {
    const isAlive = (nodeId: string): boolean => node.isAlive(nodeId)
    switch (question.about) {
      case 'cluster':
        return clusterDocument(topology, this.#options.host.identity.nodeId, isAlive)
      case 'nodes':
        return nodesDocument(topology, isAlive)
      case 'ring':
        return ringDocument(topology)
      case 'key': {
        const bucket = node.bucket(question.bucketId)
        if (bucket === undefined) return new SunwiseError('BUCKET_NOT_FOUND', 'There is no such bucket any more')
        return keyDocument(topology, bucket, question.key, isAlive)
      }
    }
  }

  #change(node: Node, change: ClusterChange, answer: (payload: Uint8Array) => void): void {
    const { nodeId } = change
    const done = (outcome: Parameters<Parameters<Node['change']>[1]>[0]): void => {
      if (outcome.type === 'decided') answer(encodeAnswer(undefined, { epoch: outcome.topology.epoch }))
      else answer(encodeAnswer(errorOfOutcome(outcome), undefined))
    }
    switch (change.type) {
      case 'leave':
        return node.change((before) => changeMembers(before, [{ type: 'leave', nodeId }]), done)
      case 'remove':
        if (!change.force) {
          return node.change((before) => changeMembers(before, [{ type: 'leave', nodeId, isDown: true }]), done)
        }
        return this.#forceRemove(node, nodeId, done)
    }
  }

  /** Without the voters only where too many of them do not answer. */
  #forceRemove(node: Node, nodeId: string, done: Parameters<Node['change']>[1]): void {
    const apply: TopologyChange = (before) => forceRemove(before, nodeId)
    const voters = node.topology!.voters
    const answering = voters.filter((voter) => voter !== nodeId && node.isAlive(voter)).length
    if (answering > voters.length / 2) node.change(apply, done)
    else node.chain.force(apply, done)
  }

  // Buckets.

  async #putBucket(name: string, properties: BucketProperties): Promise<{ bucket: Bucket; created: boolean }> {
    let created = false
    await this.#changed((before) => {
      created = !before.buckets.some((bucket) => bucket.name === name)
      return putBucket(before, name, properties)
    })
    const topology = this.#node?.topology
    const present = topology?.buckets.find((bucket) => bucket.name === name)
    const bucket = present === undefined ? undefined : this.#node!.bucket(present.id)
    if (bucket === undefined) throw new SunwiseError('CONFLICT', `Bucket "${name}" was deleted meanwhile`)
    return { bucket, created }
  }

  async #deleteBucket(name: string): Promise<undefined> {
    await this.#changed((before) => deleteBucket(before, name))
    return undefined
  }

  /** Brings a change into the chain; resolves when all threads of this node go by it. */
  async #changed(apply: TopologyChange): Promise<void> {
    const node = this.#node
    if (node === undefined) throw new SunwiseError('NOT_READY', 'This node is not yet a member of a cluster')
    await new Promise<void>((resolve, reject) => {
      node.change(apply, (outcome) => {
        if (outcome.type === 'decided' || (outcome.type === 'refused' && outcome.refusal.refused === 'NO_CHANGE'))
          resolve()
        else reject(errorOfOutcome(outcome))
      })
      this.#loop.schedule()
    })
    await this.#bucketsAdopted
  }
}

function identityOf({ identity }: NodeHost): ClusterIdentity {
  return { clusterId: identity.clusterId, clusterKey: Buffer.from(identity.clusterKey, 'base64') }
}

function storedTopology(host: NodeHost): Topology | undefined {
  const bytes = host.catalog.get('topology/topology')
  if (bytes === undefined) return undefined
  const topology = decodeTopology(bytes)
  if (topology?.clusterId === host.identity.clusterId) return topology
  throw new SunwiseError('CATALOG_CORRUPT', 'Cannot read the topology in the catalog; restore a backup')
}

function errorOfOutcome(
  outcome:
    | { readonly type: 'refused'; readonly refusal: Refusal }
    | { readonly type: 'failed'; readonly error: SunwiseError },
): SunwiseError {
  if (outcome.type === 'failed') return outcome.error
  const { refused, why } = outcome.refusal
  const extra = { refused }
  switch (refused) {
    case 'BAD_BUCKET':
    case 'TOO_MANY_BUCKETS':
      return new SunwiseError(refused, why)
    case 'BUCKET_UNKNOWN':
      return new SunwiseError('BUCKET_NOT_FOUND', why)
    default:
      return new SunwiseError('CONFLICT', why, { extra })
  }
}
