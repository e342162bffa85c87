/**
 * The changes that this node wants in the chain: they wait in line, and the first is proposed for the epoch after the present one.
 *
 *   ballot      stored, then used: after a restart it must not stand for another value
 *   no answer   asked again, and after some times begun anew
 *   barred      by a voter that may have forgotten what it said: it counts as one that does not answer, and an end by time names it
 *   beaten      by a higher ballot: begun anew after a pause, drawn at random and longer each time, so that two do not beat each other for ever
 *   decided     where the new epoch names the change, it is made; where it does not, it is applied to that epoch and proposed again; where
 *               that cannot be known, since too many epochs have passed, the answer says so
 *   too late    given up; it may be made all the same once a voter was asked to accept it, and the answer says that, too
 */
import { assert } from '../../base/assert.ts'
import { SunwiseError } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import type { Random } from '../../env.ts'
import { Proposer } from '../paxos.ts'
import type { ChainReply, ChainRequest } from './chain-messages.ts'
import { type ChainStore, encodeCounter } from './chain-store.ts'
import { signed } from './plan.ts'
import { isRefusal, type Refusal } from './refusal.ts'
import type { Topology } from './topology.ts'
import { decodeTopology, encodeTopology } from './topology-bytes.ts'

export type ProposalParameters = {
  /** A voter that has not answered is asked again after this, give or take a half; after so many times with a new ballot. */
  readonly resendMs: number
  readonly resendsMax: number
  /** A proposal that another one beat waits for so long, give or take a half, twice as long each time. */
  readonly backoffMs: number
  readonly backoffMsMax: number
  /** A change that is not decided by then is given up. */
  readonly changeTimeoutMs: number
}

/** A change: the topology it makes of another, one epoch on, or why it cannot. Called again and again; pure. */
export type TopologyChange = (topology: Topology) => Topology | Refusal

export type ChangeOutcome =
  /** It is in the chain, as the latest epoch or an earlier one; `topology` is the latest that this node has. */
  | { readonly type: 'decided'; readonly topology: Topology }
  | { readonly type: 'refused'; readonly refusal: Refusal }
  /** TIMEOUT, OVERLOADED, NOT_READY, or an error of the store, with the outcome that is true. */
  | { readonly type: 'failed'; readonly error: SunwiseError }

export type ChangeDone = (outcome: ChangeOutcome) => void

export type ProposalsOptions = {
  /** Names its ballots: another one where it may have forgotten which it used. */
  readonly acceptor: string
  readonly random: Random
  readonly store: ChainStore
  readonly parameters: ProposalParameters
  /** The highest counter of a ballot that this node ever used. */
  readonly counter: number
  /** What the next epoch is to follow; undefined while there is none, or another is on its way. */
  present(): Topology | undefined
  /** Asks all of these voters. */
  ask(epoch: number, voters: readonly string[], request: ChainRequest): void
  /** A majority has accepted this value, the epoch after the present. */
  decided(value: Uint8Array): void
}

type Pending = {
  /** Names it in the chain. */
  readonly change: string
  readonly apply: TopologyChange
  readonly done: ChangeDone
  readonly deadlineMs: number
}

type Proposal = {
  readonly pending: Pending
  readonly before: Topology
  readonly epoch: number
  readonly value: Uint8Array
  readonly proposer: Proposer<Uint8Array>
  /** The ballot is being stored; nothing is sent before. */
  isStoring: boolean
  /** Some voter may have accepted the value. */
  isOut: boolean
  /** Voters that have no vote. */
  readonly barred: Set<string>
  nextMs: number
  resends: number
  defeats: number
}

export class Proposals {
  readonly #options: ProposalsOptions
  #nowMs = 0
  #counter: number
  #queue: Pending[] = []
  #proposal: Proposal | undefined

  constructor(options: ProposalsOptions) {
    this.#options = options
    this.#counter = options.counter
  }

  /** Changes that wait, the one that is proposed among them. */
  get length(): number {
    return this.#queue.length
  }

  add(apply: TopologyChange, done: ChangeDone, nowMs: number): void {
    this.#nowMs = nowMs
    if (this.#queue.length >= Limits.topologyChangesPendingMax)
      return done(failed('OVERLOADED', 'Cannot change the cluster: too many changes wait'))
    const deadlineMs = nowMs + this.#options.parameters.changeTimeoutMs
    this.#queue.push({ change: newChange(this.#options.random), apply, done, deadlineMs })
    this.pursue()
  }

  tick(nowMs: number): void {
    this.#nowMs = nowMs
    this.#endLate()
    this.#goOn()
    this.pursue()
  }

  /** Proposes the first change that waits, where none is proposed. */
  pursue(): void {
    while (this.#proposal === undefined && this.#queue.length > 0) {
      const before = this.#options.present()
      if (before === undefined) return
      const pending = this.#queue[0]!
      const outcome = pending.apply(before)
      if (isRefusal(outcome)) {
        this.#settle(pending, { type: 'refused', refusal: outcome })
        continue
      }
      assert(outcome.epoch === before.epoch + 1, 'A change makes the next epoch')
      this.#propose(pending, before, encodeTopology(signed(outcome, pending.change)))
    }
  }

  /** Takes a voter's answer, however old. */
  receive(voter: string, epoch: number, reply: ChainReply, nowMs: number): void {
    this.#nowMs = nowMs
    const proposal = this.#proposal
    if (proposal?.epoch !== epoch || proposal.isStoring) return
    if (reply.type === 'barred') {
      proposal.barred.add(voter)
      return
    }
    const { proposer } = proposal
    const told = reply.type === 'promised' ? reply.accepted : undefined
    if (told !== undefined && !isSuccessor(proposal.before, told.value)) return
    const wasAsking = proposer.request !== undefined
    if (proposer.receive(voter, reply)) {
      proposal.resends = 0
      if (proposer.isDecided) this.#options.decided(proposer.decision!)
      else this.#ask(proposal)
    } else if (wasAsking && proposer.request === undefined) {
      const { backoffMs, backoffMsMax } = this.#options.parameters
      proposal.nextMs = nowMs + this.#about(Math.min(backoffMsMax, backoffMs * 2 ** proposal.defeats))
      proposal.defeats++
    }
  }

  /** Another epoch is there: what has become of the proposal? */
  conclude(topology: Topology): void {
    const proposal = this.#proposal
    if (proposal === undefined || proposal.epoch > topology.epoch) return
    this.#drop(proposal)
    const { pending } = proposal
    if (topology.changes.includes(pending.change)) return this.#settle(pending, { type: 'decided', topology })
    // Where it lost, it is applied again; where it cannot be known, it must not be.
    const isNamed = proposal.epoch > topology.epoch - topology.changes.length
    if (!isNamed && proposal.isOut)
      this.#settle(pending, failed('TIMEOUT', 'The change may have been made or not', 'unknown'))
  }

  #propose(pending: Pending, before: Topology, value: Uint8Array): void {
    this.#proposal = {
      pending,
      before,
      epoch: before.epoch + 1,
      value,
      proposer: new Proposer(this.#options.acceptor, before.voters, value, this.#counter),
      isStoring: false,
      isOut: false,
      barred: new Set(),
      nextMs: this.#nowMs,
      resends: 0,
      defeats: 0,
    }
    this.#begin(this.#proposal)
  }

  /** Begins with a new ballot. */
  #begin(proposal: Proposal): void {
    const { parameters, store } = this.#options
    proposal.proposer.begin()
    proposal.resends = 0
    proposal.isStoring = true
    this.#counter = proposal.proposer.counter
    store.save({ ballot: encodeCounter(this.#counter) }, (error) => {
      proposal.isStoring = false
      if (this.#proposal !== proposal) return
      proposal.nextMs = this.#nowMs + this.#about(parameters.resendMs)
      if (error === undefined) this.#ask(proposal)
      else proposal.resends = parameters.resendsMax
    })
  }

  #ask(proposal: Proposal): void {
    const { epoch, before, proposer, value } = proposal
    const { request } = proposer
    if (request === undefined) return
    if (request.type === 'accept' && request.value === value) proposal.isOut = true
    this.#options.ask(epoch, before.voters, request)
  }

  /** Asks again, or begins anew. */
  #goOn(): void {
    const proposal = this.#proposal
    if (proposal === undefined || proposal.isStoring || this.#nowMs < proposal.nextMs) return
    const { proposer, resends } = proposal
    const { resendMs, resendsMax } = this.#options.parameters
    // It could not be stored then.
    if (proposer.isDecided) return this.#options.decided(proposer.decision!)
    if (proposer.request === undefined || resends >= resendsMax) return this.#begin(proposal)
    proposal.resends++
    proposal.nextMs = this.#nowMs + this.#about(resendMs)
    this.#ask(proposal)
  }

  #endLate(): void {
    for (const pending of this.#queue.filter(({ deadlineMs }) => this.#nowMs >= deadlineMs)) {
      const proposal = this.#proposal?.pending === pending ? this.#proposal : undefined
      if (proposal !== undefined) this.#drop(proposal)
      const barred = [...(proposal?.barred ?? [])]
      const lost =
        barred.length === 0 ? '' : `; without a vote, since they lost what they had voted: ${barred.join(', ')}`
      const why = `No majority of the voters has decided the change in time${lost}`
      this.#settle(pending, failed('TIMEOUT', why, proposal?.isOut === true ? 'unknown' : 'none'))
    }
  }

  #drop(proposal: Proposal): void {
    this.#counter = Math.max(this.#counter, proposal.proposer.counter)
    this.#proposal = undefined
  }

  #settle(pending: Pending, outcome: ChangeOutcome): void {
    this.#queue = this.#queue.filter((other) => other !== pending)
    pending.done(outcome)
  }

  /** A time give or take a half, so that nodes are not in step. */
  #about(ms: number): number {
    return ms * (0.5 + this.#options.random.u32() / 2 ** 32)
  }
}

/** A name for a change that no other has. */
export function newChange(random: Random): string {
  return Array.from({ length: 2 }, () => random.u32().toString(16).padStart(8, '0')).join('')
}

/** Whether a value can be the epoch after: all that a voter looks at. */
export function isSuccessor({ clusterId, epoch }: Topology, value: Uint8Array): boolean {
  const next = decodeTopology(value)
  return next?.clusterId === clusterId && next.epoch === epoch + 1
}

export function failed(
  code: 'TIMEOUT' | 'OVERLOADED' | 'NOT_READY',
  message: string,
  outcome: 'none' | 'unknown' = 'none',
): ChangeOutcome {
  return { type: 'failed', error: new SunwiseError(code, message, { outcome }) }
}
