/**
 * Many members over a simulated network: messages take time and may be lost, members may stall, crash, come back and be cut off. All of it
 * drawn from a seed; time passes in steps of a tick.
 */
import { SeededRandom } from '../../../src/base/seeded-random.ts'
import { type Member, Membership, type MembershipParameters } from '../../../src/cluster/membership/membership.ts'
import type { MemberState } from '../../../src/cluster/membership/messages.ts'

const tickMs = 50

type Flight = { readonly atMs: number; readonly from: string; readonly to: string; readonly bytes: Uint8Array }

export type SimMember = {
  readonly nodeId: string
  readonly address: string
  membership: Membership
  /** Ends of its stalls and of its life. */
  stalledUntilMs: number
  isUp: boolean
  /** The highest incarnation that it stored. */
  incarnation: number
  readonly inbox: { readonly from: string; readonly bytes: Uint8Array }[]
  bytesSent: number
}

export type Observation = {
  readonly atMs: number
  readonly observer: string
  readonly nodeId: string
  readonly state: MemberState
}

export class MembershipSim {
  readonly random: SeededRandom
  readonly members: SimMember[] = []
  readonly observations: Observation[] = []
  nowMs = 0
  /** Of this many datagrams one is lost; 0: none. */
  lossOneIn = 0
  /** Whether a message gets from one address to the other. */
  reaches: (from: string, to: string) => boolean = () => true
  readonly #parameters: Partial<MembershipParameters>
  readonly #byAddress = new Map<string, SimMember>()
  /** Messages by the step in which they arrive. */
  readonly #flights = new Map<number, Flight[]>()

  constructor(seed: number | string, parameters: Partial<MembershipParameters> = {}) {
    this.random = new SeededRandom(seed)
    this.#parameters = parameters
  }

  /** Starts `count` members that join by the first. */
  start(count: number): void {
    for (let index = 0; index < count; index++) this.add()
  }

  add(): SimMember {
    const index = this.members.length
    const nodeId = (0x1000_0000_0000_0000n + BigInt(index)).toString(16)
    const member: SimMember = {
      nodeId,
      address: `node-${index}:7071`,
      membership: undefined as never,
      stalledUntilMs: 0,
      isUp: true,
      incarnation: 1,
      inbox: [],
      bytesSent: 0,
    }
    this.members.push(member)
    this.#byAddress.set(member.address, member)
    this.#begin(member)
    return member
  }

  #begin(member: SimMember): void {
    member.membership = new Membership({
      nodeId: member.nodeId,
      address: member.address,
      incarnation: member.incarnation,
      random: this.random.fork(`${member.nodeId} ${member.incarnation}`),
      nowMs: this.nowMs,
      parameters: this.#parameters,
      send: (to, bytes, kind) => {
        member.bytesSent += bytes.length
        if (kind === 'datagram' && this.lossOneIn > 0 && this.random.chance(1, this.lossOneIn)) return
        const atMs = this.nowMs + this.random.between(1, 3)
        const step = Math.ceil(atMs / tickMs)
        const flights = this.#flights.get(step)
        const flight = { atMs, from: member.address, to, bytes: bytes.slice() }
        if (flights === undefined) this.#flights.set(step, [flight])
        else flights.push(flight)
      },
      changed: ({ nodeId, state }: Member) =>
        this.observations.push({ atMs: this.nowMs, observer: member.nodeId, nodeId, state }),
      refuted: (incarnation) => {
        member.incarnation = incarnation
      },
    })
    const [first] = this.members
    if (first !== member) member.membership.join([first!.address], this.nowMs)
  }

  crash(member: SimMember): void {
    member.isUp = false
    member.inbox.length = 0
  }

  /** Comes back with what it stored. */
  restart(member: SimMember): void {
    member.isUp = true
    member.incarnation++
    this.#begin(member)
  }

  /** Lets time pass. */
  run(durationMs: number, each?: () => void): void {
    for (const endMs = this.nowMs + durationMs; this.nowMs < endMs; ) {
      this.nowMs += tickMs
      const step = Math.round(this.nowMs / tickMs)
      const arrived = this.#flights.get(step) ?? []
      this.#flights.delete(step)
      arrived.sort((a, b) => a.atMs - b.atMs)
      for (const { from, to, bytes } of arrived) {
        const member = this.#byAddress.get(to)
        if (member === undefined || !member.isUp || !this.reaches(from, to)) continue
        // A stalled member reads when it goes on.
        if (this.nowMs < member.stalledUntilMs) member.inbox.push({ from, bytes })
        else member.membership.receive(from, bytes, this.nowMs)
      }
      for (const member of this.members) {
        if (!member.isUp || this.nowMs < member.stalledUntilMs) continue
        member.membership.tick(this.nowMs)
        for (const { from, bytes } of member.inbox.splice(0)) member.membership.receive(from, bytes, this.nowMs)
      }
      each?.()
    }
  }

  /** Runs until all members that are up agree on `wanted`; returns how long it took. */
  runUntil(isSo: () => boolean, limitMs: number): number | undefined {
    const startMs = this.nowMs
    while (this.nowMs - startMs < limitMs) {
      if (isSo()) return this.nowMs - startMs
      this.run(tickMs)
    }
    return undefined
  }

  /** Whether every member that is up sees `nodeId` in one of these states. */
  allSee(nodeId: string, states: readonly MemberState[]): boolean {
    return this.members.every(
      (member) =>
        !member.isUp ||
        member.nodeId === nodeId ||
        states.includes(member.membership.member(nodeId)?.state ?? ('none' as MemberState)),
    )
  }

  /** Whether every member that is up knows every other, and sees exactly those alive that are up. */
  hasConverged(): boolean {
    return this.members.every(({ nodeId, isUp }) => this.allSee(nodeId, isUp ? ['alive'] : ['dead', 'left']))
  }
}
