/**
 * This node's vote on the epoch after the one it has. An answer leaves only when all that it says is durable. It votes on one epoch at a
 * time: before it goes on to the next it holds the one that was decided, durably, so that forgetting the vote loses nothing, and whoever
 * still asks about it is told the decision instead.
 */
import { newVoter, type VoterState, vote } from '../paxos.ts'
import type { ChainReply, ChainRequest } from './chain-messages.ts'
import { type ChainStore, encodeVote, type StoredVote } from './chain-store.ts'

/** Votes that are being stored; a request beyond them is dropped, and comes again. */
const savesMax = 64

export class ChainVoter {
  readonly #store: ChainStore
  #epoch: number
  #state: VoterState<Uint8Array> = newVoter()
  /** The state that is known to be stored. */
  #durable: VoterState<Uint8Array> | undefined
  #saves = 0

  /** Votes on `epoch`; what is stored of an earlier one is passed over. */
  constructor(store: ChainStore, epoch: number, stored: StoredVote | undefined) {
    this.#store = store
    this.#epoch = epoch
    if (stored?.epoch !== epoch) return
    this.#state = stored.state
    this.#durable = stored.state
  }

  get epoch(): number {
    return this.#epoch
  }

  /** The epoch before is decided and stored. */
  moveTo(epoch: number): void {
    this.#epoch = epoch
    this.#state = newVoter()
    this.#durable = undefined
  }

  /** Answers a request about its epoch, or not at all. */
  ask(request: ChainRequest, answer: (reply: ChainReply) => void): void {
    const { state, reply } = vote(this.#state, request)
    if (reply.type === 'refused' || state === this.#durable) return answer(reply)
    if (this.#saves >= savesMax) return
    this.#state = state
    this.#saves++
    this.#store.save({ vote: encodeVote({ epoch: this.#epoch, state }) }, (error) => {
      this.#saves--
      if (error !== undefined) return
      if (state === this.#state) this.#durable = state
      answer(reply)
    })
  }
}
