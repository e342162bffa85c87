/** Other nodes over the network, as a member of a cluster uses them. */
import { HostClock } from '../clock.ts'
import type { OpenPeers } from '../cluster-member.ts'
import { HostRandom } from '../random.ts'
import { PeerTransport } from './peer-transport.ts'

/** `advertise`: where others reach this node, if it is not where it listens; empty: it is. */
export function tcpPeers(
  { host, port }: { readonly host: string; readonly port: number },
  advertise: string,
  insecure: boolean,
  warn: (line: string) => void,
): OpenPeers {
  return async ({ nodeId, cluster, received, estranged }) => {
    const transport = await PeerTransport.listen({
      nodeId,
      clusterId: cluster?.clusterId,
      clusterKey: cluster?.clusterKey,
      host,
      port,
      ...(advertise === '' ? {} : { advertised: advertise }),
      insecure,
      clock: new HostClock(),
      random: new HostRandom(),
      receive: received,
      estranged,
      warn,
    })
    return {
      address: transport.address,
      datagramBytesMax: transport.datagramBytesMax,
      send: (address, bytes, kind) => transport.send(address, bytes, kind),
      setCluster: (clusterId, clusterKey) => transport.setCluster(clusterId, clusterKey),
      close: () => transport.close(),
    }
  }
}
