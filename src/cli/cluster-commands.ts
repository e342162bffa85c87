/** `cluster`: what a node says of its cluster, as tables for people or as the server's JSON, and changes of the members. */
import { SunwiseError } from '../base/errors.ts'
import { type CommandContext, clientOf } from './command-context.ts'
import { print } from './terminal.ts'

type Row = Readonly<Record<string, unknown>>

function rowsOf(document: unknown, name: string): readonly Row[] {
  const rows = (document as Row | undefined)?.[name]
  if (!Array.isArray(rows)) throw new SunwiseError('INTERNAL', 'The server answered an unreadable document')
  return rows as readonly Row[]
}

/** Columns that are as wide as their longest entry. */
function tableOf(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [heads, ...rows]
  const widths = heads.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)))
  return lines
    .map(
      (line) =>
        `${line
          .map((text, column) => text.padEnd(widths[column]!))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}

async function show(context: CommandContext, document: unknown, text: () => string): Promise<void> {
  await print(context.terminal.stdout, context.output === 'json' ? `${JSON.stringify(document)}\n` : text())
}

function membersTable(members: readonly Row[]): string {
  const rows = members.map(({ nodeId, address, zone, state, isAlive, isVoter, partitions }) => [
    String(nodeId),
    String(address),
    zone === '' ? '-' : String(zone),
    String(state),
    isAlive === true ? 'up' : 'down',
    isVoter === true ? 'yes' : 'no',
    String(partitions),
  ])
  return tableOf(['node', 'address', 'zone', 'state', 'is', 'votes', 'partitions'], rows)
}

/** Members, and whether something moves. */
export async function clusterStatusCommand(context: CommandContext): Promise<void> {
  await using client = clientOf(context)
  const document = (await client.cluster('cluster')) as Row
  await show(context, document, () => {
    const { clusterId, epoch, isAtRest, stage, movesLeft } = document
    const moving = isAtRest === true ? 'at rest' : `${movesLeft} partitions to move, stage ${stage}`
    return `cluster ${clusterId}  epoch ${epoch}  ${moving}\n${membersTable(rowsOf(document, 'members'))}`
  })
}

/** The members. */
export async function clusterMembersCommand(context: CommandContext): Promise<void> {
  await using client = clientOf(context)
  const document = await client.cluster('nodes')
  await show(context, document, () => membersTable(rowsOf(document, 'nodes')))
}

/** The replicas of every partition; runs of partitions with the same ones stand in one line. */
export async function clusterRingCommand(context: CommandContext): Promise<void> {
  await using client = clientOf(context)
  const document = await client.cluster('ring')
  await show(context, document, () => {
    const runs: { first: number; last: number; stage: string; replicas: string }[] = []
    for (const { partition, stage, replicas } of rowsOf(document, 'partitions')) {
      const last = runs.at(-1)
      const text = Array.isArray(replicas) ? replicas.join(' ') : ''
      if (last?.replicas === text && last.stage === stage) last.last = Number(partition)
      else runs.push({ first: Number(partition), last: Number(partition), stage: String(stage), replicas: text })
    }
    return tableOf(
      ['partitions', 'stage', 'replicas'],
      runs.map(({ first, last, stage, replicas }) => [
        first === last ? `${first}` : `${first}-${last}`,
        stage,
        replicas,
      ]),
    )
  })
}

/** Where a key lies. */
export async function clusterExplainCommand(context: CommandContext, key: string): Promise<void> {
  await using client = clientOf(context)
  const document = await client.explain(key)
  await print(context.terminal.stdout, `${JSON.stringify(document, undefined, context.output === 'json' ? 0 : 2)}\n`)
}

/** Lets a node hand over what it has and leave. */
export async function clusterLeaveCommand(context: CommandContext, nodeId: string): Promise<void> {
  await using client = clientOf(context)
  const changed = (await client.changeCluster('leave', { nodeId })) as Row
  await show(
    context,
    changed,
    () => `${nodeId} leaves, agreed on in epoch ${changed['epoch']}; cluster status shows how far it is\n`,
  )
}

/** Takes out a node that is down and will not come back. */
export async function clusterRemoveCommand(context: CommandContext, nodeId: string): Promise<void> {
  await using client = clientOf(context)
  const changed = (await client.changeCluster('remove', { nodeId, force: context.options['force'] === true })) as Row
  await show(context, changed, () => `${nodeId} is taken out, agreed on in epoch ${changed['epoch']}\n`)
}
