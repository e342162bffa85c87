/** Agreement under everything that a network and crashes may do; progress once they let it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import {
  compareBallots,
  majorityOf,
  newVoter,
  type PaxosReply,
  type PaxosRequest,
  Proposer,
  type VoterState,
  vote,
} from '../../src/cluster/paxos.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

type Flight =
  | { readonly kind: 'request'; readonly from: string; readonly to: string; readonly request: PaxosRequest<string> }
  | { readonly kind: 'reply'; readonly from: string; readonly to: string; readonly reply: PaxosReply<string> }

type Voting = (state: VoterState<string>, request: PaxosRequest<string>) => ReturnType<typeof vote<string>>

/** Voters and proposers over a network that loses, repeats and reorders. Returns all decisions. */
function run(
  seed: number,
  voting: Voting = vote,
): { readonly decisions: ReadonlySet<string>; readonly deliveries: number } {
  const random = new SeededRandom(seed)
  const voters = Array.from({ length: random.pick([1, 2, 3, 3, 5]) }, (_, index) => `voter ${index}`)
  const states = new Map(voters.map((voter) => [voter, newVoter<string>()]))
  const proposers = new Map(
    Array.from({ length: random.between(1, 3) }, (_, index) => {
      const name = `proposer ${index}`
      return [name, new Proposer<string>(name, voters, `value of ${name}`)] as const
    }),
  )
  const flights: Flight[] = []
  const decisions = new Set<string>()
  let deliveries = 0
  const send = (from: string, request: PaxosRequest<string>): void => {
    for (const to of voters) flights.push({ kind: 'request', from, to, request })
  }
  const deliver = (loss: boolean): void => {
    const at = random.below(flights.length)
    const flight = flights[at]!
    if (!loss || !random.chance(1, 6)) flights.splice(at, 1)
    if (loss && random.chance(1, 5)) return
    deliveries++
    if (flight.kind === 'request') {
      const { state, reply } = voting(states.get(flight.to)!, flight.request)
      // The state is durable first; whoever stops now forgets nothing, and says nothing.
      states.set(flight.to, state)
      if (loss && random.chance(1, 10)) return
      flights.push({ kind: 'reply', from: flight.to, to: flight.from, reply })
      return
    }
    const proposer = proposers.get(flight.to)!
    if (!proposer.receive(flight.from, flight.reply)) return
    if (proposer.isDecided) decisions.add(proposer.decision!)
    else send(flight.to, proposer.request!)
  }
  for (let step = 0; step < 400; step++) {
    const name = random.pick([...proposers.keys()])
    const proposer = proposers.get(name)!
    if (!proposer.isDecided && random.chance(1, 12)) send(name, proposer.begin())
    // A proposer that stops forgets all but that it must not use a ballot again.
    if (random.chance(1, 60)) {
      proposers.set(name, new Proposer<string>(name, voters, `second value of ${name}, ${step}`, proposer.counter))
    }
    if (flights.length > 0) deliver(true)
  }
  // Left in peace, one proposer after the other comes to a decision, the same.
  flights.length = 0
  for (const [name, proposer] of proposers) {
    for (let tries = 0; !proposer.isDecided; tries++) {
      assert.ok(tries < 4, `${name} comes to a decision (seed ${seed})`)
      send(name, proposer.begin())
      while (flights.length > 0) deliver(false)
    }
    decisions.add(proposer.decision!)
  }
  return { decisions, deliveries }
}

test('Paxos: whatever is lost, repeated and reordered, one value is decided', (t) => {
  let deliveries = 0
  for (let seed = 0; seed < 2000 * scale; seed++) {
    const outcome = run(seed)
    assert.equal(outcome.decisions.size, 1, `seed ${seed}: ${[...outcome.decisions]}`)
    deliveries += outcome.deliveries
  }
  t.diagnostic(`${deliveries} messages delivered`)
})

for (const [name, voting] of [
  [
    'takes a value below what it promised',
    (state, request) => vote(request.type === 'accept' ? { ...state, promised: undefined } : state, request),
  ],
  [
    'forgets what it accepted',
    (state, request) => vote(request.type === 'prepare' ? { ...state, accepted: undefined } : state, request),
  ],
  [
    'does not tell what it accepted',
    (state, request) => {
      const { state: after, reply } = vote(state, request)
      return { state: after, reply: reply.type === 'promised' ? { ...reply, accepted: undefined } : reply }
    },
  ],
] as const satisfies readonly (readonly [string, Voting])[]) {
  test(`Paxos: the test finds a voter that ${name}`, () => {
    let wrong = 0
    for (let seed = 0; seed < 2000 && wrong === 0; seed++) if (run(seed, voting).decisions.size > 1) wrong++
    assert.ok(wrong > 0)
  })
}

test('Paxos: a voter answers each kind of request', () => {
  const first = { counter: 1, proposer: 'a' }
  const second = { counter: 1, proposer: 'b' }
  assert.ok(compareBallots(first, second) < 0)
  const promised = vote(newVoter<string>(), { type: 'prepare', ballot: second })
  assert.deepEqual(promised.reply, { type: 'promised', ballot: second, accepted: undefined })
  const refused = vote(promised.state, { type: 'accept', ballot: first, value: 'x' })
  assert.deepEqual(refused, { state: promised.state, reply: { type: 'refused', ballot: first, promised: second } })
  const accepted = vote(promised.state, { type: 'accept', ballot: second, value: 'y' })
  assert.deepEqual(accepted.reply, { type: 'accepted', ballot: second })
  const later = { counter: 2, proposer: 'a' }
  assert.deepEqual(vote(accepted.state, { type: 'prepare', ballot: later }).reply, {
    type: 'promised',
    ballot: later,
    accepted: { ballot: second, value: 'y' },
  })
  assert.deepEqual([1, 2, 3, 4, 5].map(majorityOf), [1, 2, 2, 3, 3])
})
