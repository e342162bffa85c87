/**
 * A simulated disk: the door `Disk` in memory, deterministic, and as unkind as the door allows.
 *
 *   content     what is in the page cache, and beside it what is durable. Each 512-byte sector that was written since its last
 *               sync keeps its versions: a power cut leaves the durable one or any later one, each sector by its own draw,
 *               whatever the order of the writes. The last sector of a write may be torn: its first bytes new, the rest old.
 *   size        a power cut leaves the durable size or any later one.
 *   entries     creations, renames and removals since the directory's last sync each survive a power cut or not. A sync of the file
 *               does not make its entry durable. A file whose rename is lost is still there under its old name.
 *   a sync that fails marks the pages clean, as kernels do: they can be read, no later sync writes them, a power cut loses them
 *   a lying sync reports success and does nothing
 *   an error of a write leaves any part of it done; of a rename, removal or creation: all of it or nothing
 *
 * A process that dies (`kill`) loses its open files and callbacks, and nothing that was written.
 *
 * Calls are counted by kind, so that a sweep can run a scenario once, read the counts, and then fail or crash at each call.
 */
import assert from 'node:assert/strict'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type { Disk, DiskFile, Done, ReadDone } from '../../src/env.ts'

export const sectorBytes = 512

/** Kinds of calls. `create` is both `create` and `createNow`. */
export const diskCallKinds = [
  'open',
  'create',
  'size',
  'read',
  'write',
  'sync',
  'rename',
  'remove',
  'syncDirectory',
  'list',
  'makeDirectory',
] as const
export type DiskCallKind = (typeof diskCallKinds)[number]

/** Calls that change what is on the disk, or what of it is durable: crashing at others shows nothing new. */
const changingKinds: readonly DiskCallKind[] = [
  'create',
  'write',
  'sync',
  'rename',
  'remove',
  'syncDirectory',
  'makeDirectory',
]

export type SimDiskOptions = {
  /** Draws what the door leaves open. */
  readonly random?: SeededRandom
  /** Room for the content of all files, counted in sectors. */
  readonly capacityBytes?: number
  /** `immediate`: callbacks come before the method returns. `queued`: each operation waits for a `step`. */
  readonly completions?: 'immediate' | 'queued'
  /** Called when an operation has been queued. */
  readonly onQueued?: () => void
  /** Called at each call, before it does anything. */
  readonly onCall?: (kind: DiskCallKind, path: string) => void
}

export type DiskFault = {
  readonly kind: DiskCallKind
  /** EIO becomes DISK_FAILED, ENOSPC becomes DISK_FULL (DISK_FAILED for syncs); a lie is for `sync` and `syncDirectory`. */
  readonly error: 'EIO' | 'ENOSPC' | 'lie'
  /** Only calls on this path, or on paths below it. */
  readonly path?: string
  /** Which of those calls from now on; 1 (the next) if not given. */
  readonly nth?: number
  /** How many calls fail from that one on; 1 if not given, Infinity for ever. */
  readonly times?: number
  /** For writes: so many bytes are written before the error (a short write). Drawn if not given. */
  readonly writtenBytes?: number
}

/** Thrown at the call where a simulated crash was planned, and by every call until the crash is carried out. */
export class SimCrash extends Error {
  override name = 'SimCrash'
}

type PlannedFault = { readonly fault: DiskFault; skip: number; left: number }
/** What a call is to do besides its work. */
type Verdict = { readonly fault: DiskFault | undefined; readonly crashes: boolean }

/** One content of a sector after a write. `tornFrom` and `tornTo`: where the write's last bytes lie, if it ended here. */
type SectorVersion = {
  readonly sequence: number
  readonly bytes: Uint8Array
  readonly tornFrom: number
  readonly tornTo: number
}

/** Later versions of a sector are forgotten from the middle: enough is left to go wrong. */
const versionsKept = 4

class FileNode {
  readonly kind = 'file'
  live = new Uint8Array(0)
  liveBytes = 0
  durable = new Uint8Array(0)
  durableBytes = 0
  /** Versions since the last sync, by sector. */
  readonly pending = new Map<number, SectorVersion[]>()
  readonly pendingSizes: { readonly sequence: number; readonly bytes: number }[] = []
  /** Sectors that the page cache holds, takes for clean, and that are not durable. */
  readonly lost = new Map<number, Uint8Array>()
  lostBytes = 0
}

type Change = {
  readonly sequence: number
  readonly name: string
  /** What the name means after the change; undefined: nothing. */
  readonly node: Node | undefined
  /** A removal that may be durable only if this one is: the two halves of a rename. */
  readonly needs: { readonly directory: DirectoryNode; readonly change: Change } | undefined
}

class DirectoryNode {
  readonly kind = 'directory'
  live = new Map<string, Node>()
  durable = new Map<string, Node>()
  /** By name, the number of the last change that is durable. */
  readonly durableSequence = new Map<string, number>()
  pending: Change[] = []
  /** Changes whose sync failed: no later sync makes them durable. */
  lost: Change[] = []
}

type Node = FileNode | DirectoryNode

type Operation = {
  /** Operations of one stream keep their order. */
  readonly stream: object
  /** Does the work; `share` from 0 to 1 says how much of it a crash lets through. */
  readonly effect: (share: number) => void
  readonly done: () => void
}

/** A copy of a whole disk, page cache included. */
export type SimDiskImage = { readonly root: unknown; readonly sequence: number }

/** The simulated disk. */
export class SimDisk implements Disk {
  readonly #random: SeededRandom
  #completions: 'immediate' | 'queued'
  /** Open files of the present process by their numbers. */
  readonly #handles = new Map<number, SimFile>()
  readonly #onQueued: () => void
  readonly #onCall: (kind: DiskCallKind, path: string) => void
  #root = new DirectoryNode()
  #queue: Operation[] = []
  #faults: PlannedFault[] = []
  #crash: { callsLeft: number; readonly changesOnly: boolean } | undefined
  #hasCrashed = false
  #sequence = 0
  #usedBytes = 0
  /** Files opened before the present process are dead. */
  #process = 0
  capacityBytes: number
  readonly calls: Record<DiskCallKind, number> = zeroCounts()

  constructor(options: SimDiskOptions = {}) {
    this.#random = options.random ?? new SeededRandom('disk')
    this.#completions = options.completions ?? 'immediate'
    this.#onQueued = options.onQueued ?? (() => {})
    this.#onCall = options.onCall ?? (() => {})
    this.capacityBytes = options.capacityBytes ?? Number.POSITIVE_INFINITY
  }

  // The door.

  openNow(path: string): DiskFile {
    const { fault, crashes } = this.#begin('open', path)
    this.#finish('open', path, fault, crashes)
    return new SimFile(this, path, this.#file('open', path), this.#process)
  }

  createNow(path: string): DiskFile {
    const { fault, crashes } = this.#begin('create', path)
    if ((fault === undefined && !crashes) || this.#random.chance(1, 2)) this.#makeFile(path)
    this.#finish('create', path, fault, crashes)
    return new SimFile(this, path, this.#file('create', path), this.#process)
  }

  create(
    path: string,
    bytes: number,
    done: (error: SunwiseError | undefined, file: DiskFile | undefined) => void,
  ): void {
    assert.ok(Number.isSafeInteger(bytes) && bytes >= 0)
    const { fault, crashes } = this.#begin('create', path)
    let error: SunwiseError | undefined
    let file: DiskFile | undefined
    const effect = (share: number): void => {
      try {
        const node = this.#makeFile(path)
        const isWhole = fault === undefined && !crashes && share === 1
        const wanted = isWhole ? bytes : this.#random.below(bytes + 1)
        this.#extend(node, wanted, path)
        if (!isWhole) return
        this.#makeDurable(node, this.#sequence)
        this.#makeEntryDurable(path)
        file = new SimFile(this, path, node, this.#process)
      } catch (cause) {
        error = coded(cause)
      }
    }
    if (crashes) this.#dieAfter(() => effect(0))
    this.#submit({}, effect, () => {
      if (fault !== undefined) error ??= ioError('create', path, fault.error)
      done(error, error === undefined ? file : undefined)
    })
  }

  rename(from: string, to: string, done: Done): void {
    this.#change('rename', from, done, () => {
      const source = this.#parent('rename', from)
      const target = this.#parent('rename', to)
      const node = source.directory.live.get(source.name)
      if (node === undefined) throw ioError('rename', from, 'ENOENT')
      const replaced = target.directory.live.get(target.name)
      if (replaced === node) return
      if (replaced !== undefined && (replaced.kind === 'directory' || node.kind === 'directory')) {
        throw ioError('rename', from, 'EISDIR')
      }
      this.#forgetContent(replaced)
      const put = this.#note(target.directory, target.name, node, undefined)
      this.#note(source.directory, source.name, undefined, { directory: target.directory, change: put })
    })
  }

  remove(path: string, done: Done): void {
    this.#change('remove', path, done, () => {
      const { directory, name } = this.#parent('remove', path, true)
      const node = directory?.live.get(name)
      if (directory === undefined || node === undefined) return
      if (node.kind === 'directory' && node.live.size > 0) throw ioError('remove', path, 'ENOTEMPTY')
      this.#forgetContent(node)
      this.#note(directory, name, undefined, undefined)
    })
  }

  syncDirectory(path: string, done: Done): void {
    const { fault, crashes } = this.#begin('syncDirectory', path)
    const upTo = this.#sequence
    let error: SunwiseError | undefined
    const effect = (share: number): void => {
      if (share < 1) return
      try {
        const directory = this.#directory('sync directory', path)
        if (fault?.error === 'lie') return
        const covered = directory.pending.filter(({ sequence }) => sequence <= upTo)
        directory.pending = directory.pending.filter(({ sequence }) => sequence > upTo)
        if (fault !== undefined) directory.lost.push(...covered)
        else for (const change of covered) makeChangeDurable(directory, change)
      } catch (cause) {
        error = coded(cause)
      }
    }
    if (crashes) this.#dieAfter(() => {})
    this.#submit({}, effect, () => {
      if (fault !== undefined && fault.error !== 'lie') error ??= ioError('sync directory', path, 'EIO')
      done(error)
    })
  }

  readHandleNow(handle: number, buffer: Uint8Array, start: number, end: number, at: number): number {
    const file = this.#handles.get(handle)
    if (file === undefined) throw ioError('read', `handle ${handle}`, 'EBADF')
    return file.readNow(buffer, start, end, at)
  }

  removeNow(path: string): void {
    this.now((done) => this.remove(path, done))
  }

  syncDirectoryNow(path: string): void {
    this.now((done) => this.syncDirectory(path, done))
  }

  listNow(path: string): string[] {
    const { fault, crashes } = this.#begin('list', path)
    this.#finish('list', path, fault, crashes)
    const node = this.#lookup('list', path)
    if (node === undefined) return []
    if (node.kind === 'file') throw ioError('list', path, 'ENOTDIR')
    return [...node.live.keys()].sort()
  }

  spaceNow(): { readonly freeBytes: number; readonly totalBytes: number } {
    return { freeBytes: Math.max(0, this.capacityBytes - this.#usedBytes), totalBytes: this.capacityBytes }
  }

  makeDirectoryNow(path: string): void {
    const { fault, crashes } = this.#begin('makeDirectory', path)
    const names = namesOf(path)
    const wanted = fault === undefined && !crashes ? names.length : this.#random.below(names.length + 1)
    let directory = this.#root
    for (const name of names.slice(0, wanted)) {
      let next = directory.live.get(name)
      if (next?.kind === 'file') throw ioError('create directory', path, 'EEXIST')
      if (next === undefined) {
        next = new DirectoryNode()
        directory.live.set(name, next)
      }
      setDurable(directory, name, next, ++this.#sequence)
      directory = next
    }
    this.#finish('create directory', path, fault, crashes)
  }

  // Faults.

  /** Plans an error. Several plans may wait at once; a call takes the first that is due. */
  fail(fault: DiskFault): void {
    assert.ok(fault.error !== 'lie' || fault.kind === 'sync' || fault.kind === 'syncDirectory', 'Only syncs can lie')
    this.#faults.push({ fault, skip: (fault.nth ?? 1) - 1, left: fault.times ?? 1 })
  }

  /** Forgets all planned errors and crashes. */
  heal(): void {
    this.#faults = []
    this.#crash = undefined
  }

  /** The `nth` call from now (1: the next) is done in part and throws SimCrash, and so does every call until `crash` or `kill`. */
  crashAtCall(nth: number): void {
    assert.ok(nth >= 1)
    this.#crash = { callsLeft: nth, changesOnly: false }
  }

  /** As `crashAtCall`, counting only calls that change something: a sweep over these misses nothing. */
  crashAtChange(nth: number): void {
    assert.ok(nth >= 1)
    this.#crash = { callsLeft: nth, changesOnly: true }
  }

  /** Whether a planned crash has happened and has not been carried out. */
  get hasCrashed(): boolean {
    return this.#hasCrashed
  }

  /** Calls so far. */
  get callsTotal(): number {
    return diskCallKinds.reduce((sum, kind) => sum + this.calls[kind], 0)
  }

  /** Calls so far that changed something. */
  get changesTotal(): number {
    return changingKinds.reduce((sum, kind) => sum + this.calls[kind], 0)
  }

  /** Cuts the power: all open files end, callbacks under way never come, and `random` draws what of the unsynced survives. */
  crash(random: SeededRandom): void {
    this.kill(random)
    const seen = new Set<Node>()
    const settle = (directory: DirectoryNode): void => {
      for (const change of inOrder([...directory.lost, ...directory.pending])) {
        // A removal that needs its rename's other half waits for that one's draw: `survives` remembers it.
        if (survives(change, random)) makeChangeDurable(directory, change)
      }
      directory.pending = []
      directory.lost = []
      directory.live = new Map(directory.durable)
      for (const node of sortedNodes(directory)) {
        if (seen.has(node)) continue
        seen.add(node)
        if (node.kind === 'directory') settle(node)
        else settleFile(node, random)
      }
    }
    const draws = new Map<Change, boolean>()
    const survives = (change: Change, drawn: SeededRandom): boolean => {
      let fate = draws.get(change)
      if (fate === undefined) {
        fate = drawn.chance(1, 2) && (change.needs === undefined || survives(change.needs.change, drawn))
        draws.set(change, fate)
      }
      return fate
    }
    settle(this.#root)
    this.#countUsed()
  }

  /** Ends the process alone: what was written stays, with what was under way done, not done, or done in part. */
  kill(random: SeededRandom): void {
    const queue = random.shuffle(this.#queue)
    this.#queue = []
    this.#hasCrashed = false
    this.#crash = undefined
    for (const operation of queue) {
      const share = random.pick([0, random.fraction(), 1])
      if (share > 0) operation.effect(share)
    }
    this.#process++
  }

  /** Bytes of a file, seen from behind. */
  sizeOf(path: string): number {
    return this.#file('size', path).liveBytes
  }

  /** Turns one bit of a stored byte, behind everybody's back. */
  flipBit(path: string, offset: number, bit: number): void {
    const node = this.#file('flip', path)
    assert.ok(offset < node.liveBytes && bit >= 0 && bit < 8)
    const mask = 1 << bit
    node.live[offset]! ^= mask
    if (offset < node.durableBytes) node.durable[offset]! ^= mask
    const sector = Math.floor(offset / sectorBytes)
    for (const version of node.pending.get(sector) ?? []) version.bytes[offset % sectorBytes]! ^= mask
    const lost = node.lost.get(sector)
    if (lost !== undefined) lost[offset % sectorBytes]! ^= mask
  }

  /** Cuts a file off behind everybody's back; the rest is durable. */
  truncate(path: string, bytes: number): void {
    const node = this.#file('truncate', path)
    assert.ok(bytes <= node.liveBytes)
    this.#usedBytes -= roomOf(node.liveBytes) - roomOf(bytes)
    node.live = withRoom(node.live.slice(0, bytes), bytes)
    node.liveBytes = bytes
    node.durable = node.live.slice()
    node.durableBytes = bytes
    node.lostBytes = 0
    node.pendingSizes.length = 0
    node.pending.clear()
    node.lost.clear()
  }

  /** Lets the kernel forget its clean pages: what a failed sync left is gone from readers, too. */
  dropCaches(): void {
    this.#eachFile((node) => {
      for (const sector of [...node.lost.keys()]) {
        if (node.pending.has(sector)) continue
        const start = sector * sectorBytes
        copySector(
          node.durable,
          start,
          node.live,
          start,
          Math.max(0, Math.min(node.durableBytes, start + sectorBytes) - start),
        )
        node.lost.delete(sector)
      }
    })
  }

  /** Loses everything: a new, empty disk. */
  wipe(): void {
    this.#root = new DirectoryNode()
    this.#restart()
  }

  /** A copy of the whole state, page cache included. Nothing may be under way. */
  snapshot(): SimDiskImage {
    assert.equal(this.#queue.length, 0, 'Nothing is under way')
    return { root: cloneDirectory(this.#root, new Map()), sequence: this.#sequence }
  }

  /** Puts a state back, as from a backup or to try another fate. Open files and callbacks end. */
  restore(image: SimDiskImage): void {
    this.#root = cloneDirectory(image.root as DirectoryNode, new Map())
    this.#sequence = image.sequence
    this.#restart()
  }

  // Completions.

  /** Ends one of the operations under way, drawn by `random`; those on one file keep their order. False if there is none. */
  step(random: SeededRandom): boolean {
    const streams = new Set<object>()
    const heads = this.#queue.filter(({ stream }) => {
      const isFirst = !streams.has(stream)
      streams.add(stream)
      return isFirst
    })
    if (heads.length === 0) return false
    const chosen = random.pick(heads)
    this.#queue.splice(this.#queue.indexOf(chosen), 1)
    chosen.effect(1)
    chosen.done()
    return true
  }

  /** Ends all operations under way, and those that their callbacks begin. */
  drain(random: SeededRandom): void {
    while (this.step(random));
  }

  /** Operations under way. */
  get pendingOperations(): number {
    return this.#queue.length
  }

  // For checkers. None of these counts as a call.

  /** What a reader would get of a whole file. */
  bytesOf(path: string): Uint8Array {
    const node = this.#file('inspect', path)
    return node.live.slice(0, node.liveBytes)
  }

  /** The durable content of a file that exists, whatever its entry. */
  durableBytesOf(path: string): Uint8Array {
    const node = this.#file('inspect', path)
    return node.durable.slice(0, node.durableBytes)
  }

  /** Whether a power cut could change this file's content. */
  isSynced(path: string): boolean {
    const node = this.#file('inspect', path)
    return node.pending.size === 0 && node.lost.size === 0 && node.durableBytes === node.liveBytes
  }

  /** Paths of all files, sorted. */
  paths(): string[] {
    const found: string[] = []
    const walk = (directory: DirectoryNode, prefix: string): void => {
      for (const [name, node] of directory.live) {
        if (node.kind === 'file') found.push(prefix + name)
        else walk(node, `${prefix}${name}/`)
      }
    }
    walk(this.#root, '')
    return found.sort()
  }

  /** Room that all files take. */
  get usedBytes(): number {
    return this.#usedBytes
  }

  // For SimFile.

  /** Counts a call of a file that `process` opened, and says what is planned for it. */
  begin(kind: DiskCallKind, path: string, process: number): Verdict {
    if (process !== this.#process) throw new SimCrash(`The process that opened "${path}" is dead`)
    return this.#begin(kind, path)
  }

  /** Throws the crash or error that is planned for a call. */
  finish(action: string, path: string, fault: DiskFault | undefined, crashes: boolean): void {
    this.#finish(action, path, fault, crashes)
  }

  /** Crashes in the middle of a call, of which `effect` is done. */
  dieAfter(effect: () => void): never {
    return this.#dieAfter(effect)
  }

  /** Runs an operation now or queues it. */
  submit(stream: object, effect: (share: number) => void, done: () => void): void {
    this.#submit(stream, effect, done)
  }

  /** Runs one operation to its end, whatever waits in the queue, and throws its error. */
  now(operation: (done: Done) => void): void {
    const before = this.#completions
    this.#completions = 'immediate'
    let failure: SunwiseError | undefined
    try {
      operation((error) => {
        failure = error
      })
    } finally {
      this.#completions = before
    }
    if (failure !== undefined) throw failure
  }

  /** Keeps an open file under a number of its own; the smallest that is free, as kernels do. */
  takeHandle(file: SimFile): number {
    let handle = 3
    while (this.#handles.has(handle)) handle++
    this.#handles.set(handle, file)
    return handle
  }

  giveHandle(handle: number, file: SimFile): void {
    if (this.#handles.get(handle) === file) this.#handles.delete(handle)
  }

  /** Number of the last change. */
  get sequence(): number {
    return this.#sequence
  }

  /** A draw for what the door leaves open. */
  drawBelow(bound: number): number {
    return this.#random.below(bound)
  }

  /** Writes as much as there is room for. @throws DISK_FULL if that is not all. */
  writeInto(node: FileNode, bytes: Uint8Array, at: number, path: string): void {
    const room = this.capacityBytes - this.#usedBytes + roomOf(node.liveBytes)
    const end = Math.min(at + bytes.length, Math.max(node.liveBytes, room))
    if (end > at) {
      const sequence = ++this.#sequence
      this.#grow(node, end, sequence)
      node.live.set(bytes.subarray(0, end - at), at)
      for (let sector = Math.floor(at / sectorBytes); sector * sectorBytes < end; sector++) {
        const start = sector * sectorBytes
        const isLast = end <= start + sectorBytes
        addVersion(node, sector, {
          sequence,
          bytes: node.live.slice(start, start + sectorBytes),
          tornFrom: isLast ? Math.max(0, at - start) : 0,
          tornTo: isLast ? end - start : 0,
        })
      }
    }
    if (end < at + bytes.length) throw ioError('write', path, 'ENOSPC')
  }

  /** Makes durable what was written up to the change `upTo`. */
  makeDurable(node: FileNode, upTo: number): void {
    this.#makeDurable(node, upTo)
  }

  // Inside.

  #begin(kind: DiskCallKind, path: string): Verdict {
    if (this.#hasCrashed) throw new SimCrash(`The disk has crashed; "${path}" cannot be used`)
    this.#onCall(kind, path)
    this.calls[kind]++
    if (this.#crash !== undefined && (!this.#crash.changesOnly || changingKinds.includes(kind))) {
      if (--this.#crash.callsLeft === 0) return { fault: undefined, crashes: true }
    }
    let due: PlannedFault | undefined
    for (const planned of this.#faults) {
      const { fault } = planned
      if (fault.kind !== kind) continue
      if (fault.path !== undefined && path !== fault.path && !path.startsWith(`${fault.path}/`)) continue
      if (planned.skip > 0) planned.skip--
      else due ??= planned
    }
    if (due === undefined) return { fault: undefined, crashes: false }
    if (--due.left === 0) this.#faults.splice(this.#faults.indexOf(due), 1)
    return { fault: due.fault, crashes: false }
  }

  #finish(action: string, path: string, fault: DiskFault | undefined, crashes: boolean): void {
    if (crashes) this.#dieAfter(() => {})
    if (fault !== undefined && fault.error !== 'lie') throw ioError(action, path, fault.error)
  }

  #dieAfter(effect: () => void): never {
    effect()
    this.#hasCrashed = true
    this.#crash = undefined
    throw new SimCrash('A planned crash of the simulated disk')
  }

  #submit(stream: object, effect: (share: number) => void, done: () => void): void {
    if (this.#completions === 'immediate') {
      effect(1)
      done()
      return
    }
    this.#queue.push({ stream, effect, done })
    this.#onQueued()
  }

  /** A change of directories: whole, or with an error or crash whole or not at all. */
  #change(kind: 'rename' | 'remove', path: string, done: Done, work: () => void): void {
    const { fault, crashes } = this.#begin(kind, path)
    let error: SunwiseError | undefined
    const effect = (share: number): void => {
      if ((fault !== undefined || crashes || share < 1) && this.#random.chance(1, 2)) return
      try {
        work()
      } catch (cause) {
        error = coded(cause)
      }
    }
    if (crashes) this.#dieAfter(() => effect(0))
    this.#submit({}, effect, () => {
      if (fault !== undefined) error = ioError(kind, path, fault.error)
      done(error)
    })
  }

  #lookup(action: string, path: string): Node | undefined {
    let node: Node | undefined = this.#root
    for (const name of namesOf(path)) {
      if (node?.kind === 'file') throw ioError(action, path, 'ENOTDIR')
      node = node?.live.get(name)
    }
    return node
  }

  #file(action: string, path: string): FileNode {
    const node = this.#lookup(action, path)
    if (node === undefined) throw ioError(action, path, 'ENOENT')
    if (node.kind === 'directory') throw ioError(action, path, 'EISDIR')
    return node
  }

  #directory(action: string, path: string): DirectoryNode {
    const node = this.#lookup(action, path)
    if (node === undefined) throw ioError(action, path, 'ENOENT')
    if (node.kind === 'file') throw ioError(action, path, 'ENOTDIR')
    return node
  }

  #parent(action: string, path: string): { directory: DirectoryNode; name: string }
  #parent(action: string, path: string, mayMiss: true): { directory: DirectoryNode | undefined; name: string }
  #parent(action: string, path: string, mayMiss = false): { directory: DirectoryNode | undefined; name: string } {
    const names = namesOf(path)
    const name = names.pop()
    assert.ok(name !== undefined, 'The root is no entry')
    const directory = this.#lookup(action, names.join('/'))
    if (directory === undefined && mayMiss) return { directory, name }
    if (directory?.kind !== 'directory') throw ioError(action, path, directory === undefined ? 'ENOENT' : 'ENOTDIR')
    return { directory, name }
  }

  #makeFile(path: string): FileNode {
    const { directory, name } = this.#parent('create', path)
    const present = directory.live.get(name)
    if (present?.kind === 'directory') throw ioError('create', path, 'EISDIR')
    if (present !== undefined) return present
    const node = new FileNode()
    this.#note(directory, name, node, undefined)
    return node
  }

  #makeEntryDurable(path: string): void {
    const { directory, name } = this.#parent('create', path)
    const last = directory.pending.findLast((change) => change.name === name)
    const lost = directory.lost.findLast((change) => change.name === name)
    const change = last ?? lost
    if (change !== undefined) makeChangeDurable(directory, change)
    directory.pending = directory.pending.filter((other) => other.name !== name)
    directory.lost = directory.lost.filter((other) => other.name !== name)
  }

  #note(directory: DirectoryNode, name: string, node: Node | undefined, needs: Change['needs']): Change {
    const change = { sequence: ++this.#sequence, name, node, needs }
    directory.pending.push(change)
    if (node === undefined) directory.live.delete(name)
    else directory.live.set(name, node)
    return change
  }

  #extend(node: FileNode, bytes: number, path: string): void {
    if (bytes <= node.liveBytes) return
    // What does not fit whole is given back.
    if (roomOf(bytes) - roomOf(node.liveBytes) > this.capacityBytes - this.#usedBytes)
      throw ioError('create', path, 'ENOSPC')
    this.#grow(node, bytes, ++this.#sequence)
  }

  #grow(node: FileNode, bytes: number, sequence: number): void {
    if (bytes <= node.liveBytes) return
    this.#usedBytes += roomOf(bytes) - roomOf(node.liveBytes)
    node.live = withRoom(node.live, bytes)
    node.liveBytes = bytes
    node.pendingSizes.push({ sequence, bytes })
  }

  #makeDurable(node: FileNode, upTo: number): void {
    const size = node.pendingSizes.findLast(({ sequence }) => sequence <= upTo)
    if (size !== undefined) node.durableBytes = Math.max(node.durableBytes, size.bytes)
    dropUpTo(node.pendingSizes, upTo)
    node.durable = withRoom(node.durable, node.durableBytes)
    for (const [sector, versions] of node.pending) {
      const version = versions.findLast(({ sequence }) => sequence <= upTo)
      if (version === undefined) continue
      // After a failed sync the durable size may end before this sector, which is not to stand behind the end.
      node.durableBytes = Math.max(node.durableBytes, Math.min(node.liveBytes, (sector + 1) * sectorBytes))
      node.durable = withRoom(node.durable, node.durableBytes)
      node.durable.set(version.bytes, sector * sectorBytes)
      node.lost.delete(sector)
      dropUpTo(versions, upTo)
      if (versions.length === 0) node.pending.delete(sector)
    }
  }

  #forgetContent(node: Node | undefined): void {
    if (node?.kind === 'file') this.#usedBytes -= roomOf(node.liveBytes)
  }

  #eachFile(visit: (node: FileNode) => void): void {
    const walk = (directory: DirectoryNode): void => {
      for (const node of sortedNodes(directory)) {
        if (node.kind === 'file') visit(node)
        else walk(node)
      }
    }
    walk(this.#root)
  }

  #countUsed(): void {
    this.#usedBytes = 0
    this.#eachFile((node) => {
      this.#usedBytes += roomOf(node.liveBytes)
    })
  }

  #restart(): void {
    this.#queue = []
    this.#hasCrashed = false
    this.#crash = undefined
    this.#process++
    this.#handles.clear()
    this.#countUsed()
  }
}

class SimFile implements DiskFile {
  readonly path: string
  readonly handle: number
  readonly #disk: SimDisk
  readonly #node: FileNode
  readonly #process: number
  #failure: SunwiseError | undefined
  #isClosed = false

  constructor(disk: SimDisk, path: string, node: FileNode, process: number) {
    this.#disk = disk
    this.path = path
    this.#node = node
    this.#process = process
    this.handle = disk.takeHandle(this)
  }

  syncNow(): void {
    this.#disk.now((done) => this.sync(done))
  }

  sizeNow(): number {
    const { fault, crashes } = this.#begin('size')
    this.#disk.finish('inspect', this.path, fault, crashes)
    return this.#node.liveBytes
  }

  readNow(buffer: Uint8Array, start: number, end: number, at: number): number {
    checkRange(buffer, start, end, at)
    const { fault, crashes } = this.#begin('read')
    this.#disk.finish('read', this.path, fault, crashes)
    return this.#copy(buffer, start, end, at)
  }

  read(buffer: Uint8Array, start: number, end: number, at: number, done: ReadDone): void {
    checkRange(buffer, start, end, at)
    const { fault, crashes } = this.#begin('read')
    if (crashes) this.#disk.dieAfter(() => {})
    let count = 0
    this.#disk.submit(
      this.#node,
      () => {
        if (fault === undefined) count = this.#copy(buffer, start, end, at)
      },
      () => done(fault === undefined ? undefined : ioError('read', this.path, fault.error), count),
    )
  }

  writeNow(buffer: Uint8Array, start: number, end: number, at: number): void {
    checkRange(buffer, start, end, at)
    const { fault, crashes } = this.#begin('write')
    if (crashes)
      this.#disk.dieAfter(() => this.#writePart(buffer.slice(start, end), at, this.#disk.drawBelow(end - start + 1)))
    const error = this.#write(buffer.slice(start, end), at, fault)
    if (error !== undefined) throw error
  }

  write(buffer: Uint8Array, start: number, end: number, at: number, done: Done): void {
    checkRange(buffer, start, end, at)
    const { fault, crashes } = this.#begin('write')
    if (crashes)
      this.#disk.dieAfter(() => this.#writePart(buffer.slice(start, end), at, this.#disk.drawBelow(end - start + 1)))
    if (this.#failure !== undefined) return done(this.#failure)
    let error: SunwiseError | undefined
    this.#disk.submit(
      this.#node,
      (share) => {
        // The buffer is the disk's until now: what it holds now counts.
        const bytes = buffer.slice(start, end)
        if (share < 1) this.#writePart(bytes, at, Math.floor(share * bytes.length))
        else error = this.#write(bytes, at, fault)
      },
      () => done(error),
    )
  }

  sync(done: Done): void {
    const { fault, crashes } = this.#begin('sync')
    if (crashes) this.#disk.dieAfter(() => {})
    if (this.#failure !== undefined) return done(this.#failure)
    const upTo = this.#disk.sequence
    this.#disk.submit(
      this.#node,
      (share) => {
        if (share < 1 || fault?.error === 'lie') return
        if (fault === undefined) return this.#disk.makeDurable(this.#node, upTo)
        this.#failure ??= ioError('sync', this.path, 'EIO')
        losePages(this.#node, upTo)
      },
      () => done(this.#failure),
    )
  }

  close(): void {
    this.#isClosed = true
    this.#disk.giveHandle(this.handle, this)
  }

  #begin(kind: DiskCallKind): Verdict {
    assert.ok(!this.#isClosed, `"${this.path}" is closed and must not be used`)
    return this.#disk.begin(kind, this.path, this.#process)
  }

  #copy(buffer: Uint8Array, start: number, end: number, at: number): number {
    const count = Math.max(0, Math.min(end - start, this.#node.liveBytes - at))
    buffer.set(this.#node.live.subarray(at, at + count), start)
    return count
  }

  #write(bytes: Uint8Array, at: number, fault: DiskFault | undefined): SunwiseError | undefined {
    if (this.#failure !== undefined) return this.#failure
    if (fault !== undefined) {
      this.#writePart(bytes, at, fault.writtenBytes ?? this.#disk.drawBelow(bytes.length + 1))
      const error = ioError('write', this.path, fault.error)
      if (error.code !== 'DISK_FULL') this.#failure = error
      return error
    }
    try {
      this.#disk.writeInto(this.#node, bytes, at, this.path)
      return undefined
    } catch (error) {
      return coded(error)
    }
  }

  #writePart(bytes: Uint8Array, at: number, count: number): void {
    try {
      this.#disk.writeInto(this.#node, bytes.subarray(0, count), at, this.path)
    } catch (error) {
      // A full disk takes less of it.
      coded(error)
    }
  }
}

function zeroCounts(): Record<DiskCallKind, number> {
  return Object.fromEntries(diskCallKinds.map((kind) => [kind, 0])) as Record<DiskCallKind, number>
}

function namesOf(path: string): string[] {
  if (path === '') return []
  const names = path.split('/')
  for (const name of names)
    assert.ok(name !== '' && name !== '.' && name !== '..', `"${path}" is not a path below the root`)
  return names
}

function checkRange(buffer: Uint8Array, start: number, end: number, at: number): void {
  assert.ok(start >= 0 && start <= end && end <= buffer.length && at >= 0, 'A range lies within its buffer')
}

function ioError(action: string, path: string, code: string): SunwiseError {
  const message = `Cannot ${action} "${path}": ${code}`
  const cause = Object.assign(new Error(message), { code })
  return code === 'ENOSPC'
    ? new SunwiseError('DISK_FULL', message, { outcome: 'none', cause })
    : new SunwiseError('DISK_FAILED', message, { cause })
}

/** Passes our coded errors on and lets bugs through. */
function coded(error: unknown): SunwiseError {
  if (error instanceof SunwiseError) return error
  throw error
}

function roomOf(bytes: number): number {
  return Math.ceil(bytes / sectorBytes) * sectorBytes
}

/** The same bytes in an array with room for `bytes`, rounded up to whole sectors. */
function withRoom(bytes: Uint8Array<ArrayBuffer>, wanted: number): Uint8Array<ArrayBuffer> {
  const room = roomOf(wanted)
  if (bytes.length >= room) return bytes
  const larger = new Uint8Array(Math.max(room, bytes.length * 2))
  larger.set(bytes)
  return larger
}

function copySector(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, count: number): void {
  to.fill(0, toAt, toAt + sectorBytes)
  to.set(from.subarray(fromAt, fromAt + count), toAt)
}

function addVersion(node: FileNode, sector: number, version: SectorVersion): void {
  const versions = node.pending.get(sector)
  if (versions === undefined) {
    node.pending.set(sector, [version])
    return
  }
  if (versions.length === versionsKept) versions.splice(1, 1)
  versions.push(version)
}

function dropUpTo(items: { readonly sequence: number }[], upTo: number): void {
  let count = 0
  while (count < items.length && items[count]!.sequence <= upTo) count++
  items.splice(0, count)
}

/** A failed sync: the pages that it covered count as clean and are not durable. */
function losePages(node: FileNode, upTo: number): void {
  for (const [sector, versions] of node.pending) {
    const version = versions.findLast(({ sequence }) => sequence <= upTo)
    if (version === undefined) continue
    node.lost.set(sector, version.bytes)
    dropUpTo(versions, upTo)
    if (versions.length === 0) node.pending.delete(sector)
  }
  const size = node.pendingSizes.findLast(({ sequence }) => sequence <= upTo)
  if (size !== undefined) node.lostBytes = Math.max(node.lostBytes, size.bytes)
  dropUpTo(node.pendingSizes, upTo)
}

/** Draws what a power cut leaves of a file. */
function settleFile(node: FileNode, random: SeededRandom): void {
  const sizes = [node.durableBytes, ...node.pendingSizes.map(({ bytes }) => bytes)]
  if (node.lostBytes > node.durableBytes) sizes.push(node.lostBytes)
  const size = random.pick(sizes)
  const content = new Uint8Array(roomOf(size))
  content.set(node.durable.subarray(0, Math.min(node.durableBytes, content.length)))
  const touched = new Set([...node.lost.keys(), ...node.pending.keys()])
  for (const sector of [...touched].sort((a, b) => a - b)) {
    const start = sector * sectorBytes
    const chosen = drawSector(node, sector, content.slice(start, start + sectorBytes), random)
    if (start < size) content.set(chosen, start)
  }
  content.fill(0, size)
  node.live = content
  node.liveBytes = size
  node.durable = content.slice()
  node.durableBytes = size
  node.pending.clear()
  node.pendingSizes.length = 0
  node.lost.clear()
  node.lostBytes = 0
}

function drawSector(node: FileNode, sector: number, durable: Uint8Array, random: SeededRandom): Uint8Array {
  const base = new Uint8Array(sectorBytes)
  base.set(durable)
  const lost = node.lost.get(sector)
  const contents = lost === undefined ? [base] : [base, lost]
  const versions = node.pending.get(sector) ?? []
  const first = contents.length
  for (const version of versions) contents.push(version.bytes)
  const chosen = random.below(contents.length)
  const version = versions[chosen - first]
  if (version === undefined || version.tornTo === 0 || random.chance(1, 2)) return contents[chosen]!
  // Torn within the bytes that the write put here: before the cut the new content, behind it the one before.
  const cut = random.between(version.tornFrom, version.tornTo)
  const torn = contents[chosen - 1]!.slice()
  torn.set(version.bytes.subarray(0, cut))
  return torn
}

function inOrder(changes: readonly Change[]): Change[] {
  return [...changes].sort((a, b) => a.sequence - b.sequence)
}

function makeChangeDurable(directory: DirectoryNode, change: Change): void {
  if (change.needs !== undefined) makeChangeDurable(change.needs.directory, change.needs.change)
  setDurable(directory, change.name, change.node, change.sequence)
}

/** Makes a name durable, unless a later change of it is durable already. */
function setDurable(directory: DirectoryNode, name: string, node: Node | undefined, sequence: number): void {
  if ((directory.durableSequence.get(name) ?? 0) >= sequence) return
  directory.durableSequence.set(name, sequence)
  if (node === undefined) directory.durable.delete(name)
  else directory.durable.set(name, node)
}

/** Children in the order of their names, so that draws do not depend on the history of a map. */
function sortedNodes(directory: DirectoryNode): Node[] {
  return [...directory.live].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, node]) => node)
}

/** Copies a tree; one node reached twice (a file with two names) stays one. */
function cloneDirectory(directory: DirectoryNode, copies: Map<object, object>): DirectoryNode {
  const known = copies.get(directory)
  if (known !== undefined) return known as DirectoryNode
  const copy = new DirectoryNode()
  copies.set(directory, copy)
  const cloneNode = (node: Node): Node =>
    node.kind === 'file' ? cloneFile(node, copies) : cloneDirectory(node, copies)
  for (const [name, node] of directory.live) copy.live.set(name, cloneNode(node))
  for (const [name, node] of directory.durable) copy.durable.set(name, cloneNode(node))
  for (const [name, sequence] of directory.durableSequence) copy.durableSequence.set(name, sequence)
  const cloneChange = (change: Change): Change => {
    const present = copies.get(change)
    if (present !== undefined) return present as Change
    const { needs } = change
    const cloned: Change = {
      ...change,
      node: change.node === undefined ? undefined : cloneNode(change.node),
      needs:
        needs === undefined
          ? undefined
          : { directory: cloneDirectory(needs.directory, copies), change: cloneChange(needs.change) },
    }
    copies.set(change, cloned)
    return cloned
  }
  copy.pending = directory.pending.map(cloneChange)
  copy.lost = directory.lost.map(cloneChange)
  return copy
}

function cloneFile(file: FileNode, copies: Map<object, object>): FileNode {
  const known = copies.get(file)
  if (known !== undefined) return known as FileNode
  const copy = new FileNode()
  copies.set(file, copy)
  copy.live = file.live.slice()
  copy.liveBytes = file.liveBytes
  copy.durable = file.durable.slice()
  copy.durableBytes = file.durableBytes
  for (const [sector, versions] of file.pending) {
    copy.pending.set(
      sector,
      versions.map((version) => ({ ...version, bytes: version.bytes.slice() })),
    )
  }
  copy.pendingSizes.push(...file.pendingSizes)
  for (const [sector, bytes] of file.lost) copy.lost.set(sector, bytes.slice())
  copy.lostBytes = file.lostBytes
  return copy
}
