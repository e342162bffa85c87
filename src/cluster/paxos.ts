/**
 * Single-decree Paxos (Lamport, "Paxos Made Simple", 2001): a few voters agree on one value, whoever proposes, whatever is lost, late or
 * repeated, and whoever stops in between, as long as a voter forgets nothing that it has said.
 *
 *   proposer                          voter
 *     prepare(ballot)         ->        promises to take nothing below the ballot, and tells what it accepted last
 *     accept(ballot, value)   ->        accepts unless it has promised more
 *   with a majority of promises the value is that of the highest ballot among what they tell, else the proposer's own; with a majority
 *   of acceptances it is decided, for good.
 *
 * The voter is two pure functions over its state, which is durable before an answer leaves. The proposer is an object without a thread:
 * it is told answers and says what to send. A value is whatever the caller compares by itself; undefined is none.
 */
import { assert } from '../base/assert.ts'

/** Proposals are ordered by counter, then by proposer, so that no two are equal. */
export type Ballot = { readonly counter: number; readonly proposer: string }

export type Accepted<Value> = { readonly ballot: Ballot; readonly value: Value }

/** What a voter must never forget. */
export type VoterState<Value> = {
  readonly promised: Ballot | undefined
  readonly accepted: Accepted<Value> | undefined
}

export type PaxosRequest<Value> =
  | { readonly type: 'prepare'; readonly ballot: Ballot }
  | { readonly type: 'accept'; readonly ballot: Ballot; readonly value: Value }

export type PaxosReply<Value> =
  | { readonly type: 'promised'; readonly ballot: Ballot; readonly accepted: Accepted<Value> | undefined }
  | { readonly type: 'accepted'; readonly ballot: Ballot }
  /** The voter has promised more: a higher ballot has a chance. */
  | { readonly type: 'refused'; readonly ballot: Ballot; readonly promised: Ballot }

export function compareBallots(a: Ballot, b: Ballot): number {
  return a.counter - b.counter || (a.proposer < b.proposer ? -1 : a.proposer > b.proposer ? 1 : 0)
}

export function newVoter<Value>(): VoterState<Value> {
  return { promised: undefined, accepted: undefined }
}

/** Answers a request. The new state is durable before the reply leaves; it is the old one where nothing changes. */
export function vote<Value>(
  state: VoterState<Value>,
  request: PaxosRequest<Value>,
): { readonly state: VoterState<Value>; readonly reply: PaxosReply<Value> } {
  const { ballot } = request
  const { promised, accepted } = state
  const order = promised === undefined ? 1 : compareBallots(ballot, promised)
  // Asked again with the same ballot it says the same again.
  if (order < 0) return { state, reply: { type: 'refused', ballot, promised: promised! } }
  if (request.type === 'prepare') {
    return {
      state: order === 0 ? state : { promised: ballot, accepted },
      reply: { type: 'promised', ballot, accepted },
    }
  }
  return {
    state: { promised: ballot, accepted: { ballot, value: request.value } },
    reply: { type: 'accepted', ballot },
  }
}

/** Voters that are more than half of all. */
export function majorityOf(voters: number): number {
  return Math.floor(voters / 2) + 1
}

export class Proposer<Value> {
  readonly #self: string
  readonly #voters: readonly string[]
  readonly #own: Value
  /** Highest counter heard of; that of the ballot in use. */
  #counter: number
  #begunCounter = 0
  #phase: 'resting' | 'preparing' | 'accepting' | 'decided' = 'resting'
  readonly #promises = new Map<string, Accepted<Value> | undefined>()
  readonly #acceptances = new Set<string>()
  #value: Value | undefined

  /** `own` is proposed where nothing else may have been decided. `counter` is at least that of every ballot it used before. */
  constructor(self: string, voters: readonly string[], own: Value, counter = 0) {
    assert(voters.length > 0 && new Set(voters).size === voters.length, 'Voters are distinct')
    this.#self = self
    this.#voters = voters
    this.#own = own
    this.#counter = counter
  }

  get isDecided(): boolean {
    return this.#phase === 'decided'
  }

  /** What was decided. */
  get decision(): Value | undefined {
    return this.#phase === 'decided' ? this.#value : undefined
  }

  get counter(): number {
    return this.#counter
  }

  /** Begins with a ballot above all it has heard of; gives up the present one. To be sent to every voter. */
  begin(): PaxosRequest<Value> {
    assert(this.#phase !== 'decided', 'A decision is for good')
    this.#begunCounter = ++this.#counter
    this.#phase = 'preparing'
    this.#promises.clear()
    this.#acceptances.clear()
    return { type: 'prepare', ballot: this.#ballot() }
  }

  /** What to send to every voter now, again where an answer may have been lost; undefined: nothing. */
  get request(): PaxosRequest<Value> | undefined {
    if (this.#phase === 'preparing') return { type: 'prepare', ballot: this.#ballot() }
    if (this.#phase === 'accepting') return { type: 'accept', ballot: this.#ballot(), value: this.#value as Value }
    return undefined
  }

  /** Takes a voter's answer, however old. True: there is something new to send, or it is decided. */
  receive(voter: string, reply: PaxosReply<Value>): boolean {
    if (!this.#voters.includes(voter) || this.#phase === 'decided') return false
    if (reply.type === 'refused') {
      this.#counter = Math.max(this.#counter, reply.promised.counter)
      if (compareBallots(reply.ballot, this.#ballot()) === 0) this.#phase = 'resting'
      return false
    }
    if (compareBallots(reply.ballot, this.#ballot()) !== 0) return false
    const majority = majorityOf(this.#voters.length)
    if (reply.type === 'promised') {
      if (this.#phase !== 'preparing') return false
      this.#promises.set(voter, reply.accepted)
      if (this.#promises.size < majority) return false
      this.#value = this.#chosen()
      this.#phase = 'accepting'
      return true
    }
    if (this.#phase !== 'accepting') return false
    this.#acceptances.add(voter)
    if (this.#acceptances.size < majority) return false
    this.#phase = 'decided'
    return true
  }

  #ballot(): Ballot {
    return { counter: this.#begunCounter, proposer: this.#self }
  }

  /** What may have been decided already must be proposed again. */
  #chosen(): Value {
    let highest: Accepted<Value> | undefined
    for (const accepted of this.#promises.values()) {
      if (accepted === undefined) continue
      if (highest === undefined || compareBallots(accepted.ballot, highest.ballot) > 0) highest = accepted
    }
    return highest === undefined ? this.#own : highest.value
  }
}
