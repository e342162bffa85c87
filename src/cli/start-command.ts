/**
 * `start` and `dev`: one server in the foreground. One line on stdout says that it is ready and where; everything else goes to
 * stderr. The first SIGTERM or SIGINT drains and ends with 0, the second ends at once.
 */
import { SunwiseError } from '../base/errors.ts'
import { tcpPeers } from '../host/peer/tcp-peers.ts'
import type { RunningServer, ServerOptions } from '../host/server.ts'
import { version } from '../host/version.ts'
import type { CommandContext } from './command-context.ts'
import { type ExitCode, reportFailure } from './failure.ts'
import { formatAddress, formatDuration } from './quantity.ts'
import { note, print, styled } from './terminal.ts'

/** Starts a server; a type of its own so that tests run the commands without threads. */
export type StartServer = (options: ServerOptions) => Promise<RunningServer>

function readyLine(context: CommandContext, server: RunningServer, directory: string): string {
  const http = `http://${formatAddress(server.address)}`
  const { nodeId, shards, recoveredRecords, peerAddress } = server
  const { pid } = process
  if (context.output === 'json') {
    return JSON.stringify({
      event: 'ready',
      version,
      http,
      ...server.address,
      nodeId,
      ...(peerAddress === undefined ? {} : { peer: peerAddress }),
      shards,
      recoveredRecords,
      dataDir: directory,
      pid,
    })
  }
  const peer = peerAddress === undefined ? {} : { peer: peerAddress }
  const words = { http, data: directory, node: nodeId, ...peer, shards, recovered: recoveredRecords, pid }
  const pairs = Object.entries(words).map(([name, value]) => `${name}=${value}`)
  return `sunwise ${version} ready ${pairs.join(' ')}`
}

async function serve(
  context: CommandContext,
  startServer: StartServer,
  hello?: (http: string) => void,
): Promise<ExitCode> {
  const { terminal, settings } = context
  const { dataDir } = settings
  if (dataDir === undefined) {
    throw new SunwiseError(
      'BAD_CONFIG',
      'start needs --data-dir (or SUNWISE_DATA_DIR, or "dataDir" in the --config file)',
    )
  }
  const { peer, advertise, join, zone, replaces } = settings
  if (peer === undefined && (join.length > 0 || [advertise, zone, replaces].some((text) => text !== '')))
    throw new SunwiseError(
      'BAD_CONFIG',
      '--join, --replaces, --advertise and --zone are for members of a cluster: give --peer, too',
    )
  let stop: (code: ExitCode) => void = () => {}
  const stopped = new Promise<ExitCode>((resolve) => {
    stop = resolve
  })
  let signals = 0
  const release = terminal.onSignal((signal) => {
    signals++
    if (signals > 1) terminal.exit(1)
    else {
      note(terminal, `${signal}: finishing requests under way; once more ends at once`)
      stop(0)
    }
  })
  const options: ServerOptions = {
    directory: dataDir,
    http: settings.http,
    shards: settings.shards,
    memoryBytes: settings.memory,
    durability: settings.durability,
    syncIntervalMs: settings.syncInterval,
    valueBytesMax: settings.valueMax,
    compression: settings.compression,
    scrubBytesPerSecond: settings.scrubRate,
    insecure: settings.insecure,
    allowedHosts: settings.allowedHosts,
    salvage: settings.salvage,
    cluster:
      peer === undefined
        ? undefined
        : {
            openPeers: tcpPeers(peer, advertise, settings.insecure, (line) => note(terminal, line)),
            join,
            zone,
            replaces: replaces === '' ? undefined : replaces,
          },
    log: (line) => note(terminal, line),
    onFatal: (error) => {
      reportFailure(terminal, error, context.output)
      stop(1)
    },
  }
  let server: RunningServer | undefined
  try {
    server = await startServer(options)
    // A node that is to join may have to wait; it can be stopped meanwhile.
    const hasJoined = await Promise.race([
      server.joined.then(
        () => true,
        () => false,
      ),
      stopped.then(() => false),
    ])
    // A signal during the start: nothing was promised yet, so there is nothing to say.
    if (signals === 0 && hasJoined) {
      await print(terminal.stdout, `${readyLine(context, server, dataDir)}\n`)
      hello?.(`http://${formatAddress(server.address)}`)
    }
    const code = await stopped
    if (code === 0) {
      const started = performance.now()
      await server.drain(settings.drainTimeout)
      await server.close()
      note(terminal, `stopped cleanly in ${formatDuration(performance.now() - started)}`)
    }
    return code
  } finally {
    release()
  }
}

/** How to call this program where it runs from: the repository's sources, or an installed package. */
const program = import.meta.url.endsWith('.ts') ? 'npm run -s sunwise --' : 'npx sunwise'

/** Runs a server until it is told to stop. */
export function startCommand(context: CommandContext, startServer: StartServer): Promise<ExitCode> {
  return serve(context, startServer)
}

/** Says on stderr how to write to one node and read from another, or the same. */
export function sayHowToTalk(context: CommandContext, writtenAt: string, readAt: string): void {
  const { terminal } = context
  if (context.output === 'json') return
  const bold = (text: string): string => styled(terminal, terminal.stderr, 'bold', text)
  const endpointOf = (http: string): string => (http === 'http://127.0.0.1:7070' ? '' : ` --endpoint ${http}`)
  const [write, read] = [endpointOf(writtenAt), endpointOf(readAt)]
  note(terminal, '')
  note(terminal, `  ${bold('write')}  curl -X PUT --data-binary 'hello' ${writtenAt}/v1/kv/default/greeting`)
  note(terminal, `  ${bold('read')}   curl -i ${readAt}/v1/kv/default/greeting`)
  note(terminal, `  ${bold('or')}     ${program} put greeting hello${write} && ${program} get greeting${read}`)
  note(terminal, `  ${bold('stop')}   Ctrl-C; the data stays in ${context.settings.dataDir}`)
  note(terminal, '')
}

/** Runs a server for trying things out, and says on stderr how to talk to it. */
export function devCommand(context: CommandContext, startServer: StartServer): Promise<ExitCode> {
  return serve(context, startServer, (http) => sayHowToTalk(context, http, http))
}
