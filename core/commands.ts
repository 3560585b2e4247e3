/** What the command line asks of an engine: of the daemon's, through the control socket, or of one that a command made for itself. */
import { filter } from "./rxjs.js";
import { allAdvice } from "./advice.js";
import { forget, retry } from "./amend.js";
import { ControlError, type Answer, type ControlRequest, type Exchange } from "./control.js";
import type { Engine } from "./engine.js";
import { isFault, withDevice } from "./errors.js";
import { byHand, handCommands, type Hands } from "./hand.js";
import { notesIn } from "./hand-shot.js";
import type { Ordered, Service } from "./plugin.js";
import { readiness } from "./ready.js";
import { holdCopy } from "./space.js";
import { approve, planOf } from "./sync/commands.js";
import { verify } from "./verify.js";
import { why } from "./why.js";

/** `running`: the engine is a daemon's. Throws ControlError for a mistake of the person who asks, Fault for what a device says. */
export function answerWith(engine: Engine, running: boolean): Answer {
  return (request: ControlRequest, exchange: Exchange) => {
    const what = typeof request.what === "string" ? request.what : undefined;
    const named = () => {
      if (what === undefined) throw new ControlError(`${request.command} needs an id or a path`);
      return what;
    };
    switch (request.command) {
      case "why":
        return why(engine, named(), running, exchange.signal);
      case "retry":
        return retry(engine, what, exchange.signal, running);
      case "forget":
        return forget(engine, named());
      case "verify":
        return verify(engine, what, exchange);
      case "ready":
        return readiness(engine, typeof request.need === "number" ? request.need : undefined, exchange.signal);
      case "advice":
        return allAdvice(engine, exchange.signal);
      case "plan":
        return planOf(engine, what, exchange.signal);
      case "approve":
        return approve(engine, named(), running, exchange.signal);
      case "order":
        return order(engine, request, exchange.signal);
      case "eject":
        return eject(engine, named(), exchange.signal);
      default:
        if (handCommands.includes(request.command)) return byHand(handsOf(engine), request, exchange);
        throw new ControlError(`the daemon that runs does not know "${request.command}": it is another version; restart it`);
    }
  };
}

/** Of the service of a type; by its name where there are several. Throws ControlError where none takes orders, or not these words. */
async function order(engine: Engine, request: ControlRequest, signal: AbortSignal): Promise<Ordered> {
  const words = Array.isArray(request.words) ? request.words.map(String) : [];
  const services = [...engine.lanes.values()].filter(({ config }) => config.kind === "service" && config.type === request.type);
  const [one] = services;
  if (one === undefined) throw new ControlError(`the configuration has no service of the type "${String(request.type)}"`);
  if (services.length > 1) throw new ControlError(`the configuration has several: ${services.map(({ name }) => name).join(", ")}`);
  const service = one.device as Service;
  if (service.order === undefined) throw new ControlError(`${one.name} takes no orders`);
  try {
    return await service.order(words, signal);
  } catch (error) {
    throw isFault(error, "config") ? new ControlError(error.message) : error;
  }
}

/** One line for the person. Throws ControlError where that is nothing to be taken out, Fault for what the device says. */
async function eject(engine: Engine, name: string, signal: AbortSignal): Promise<{ said: string }> {
  const lane = engine.lanes.get(name);
  const { device } = lane ?? {};
  if (lane === undefined || device?.eject === undefined) {
    const removable = [...engine.lanes.values()].filter((one) => one.device.eject !== undefined).map((one) => one.name);
    const there = removable.length === 0 ? "the configuration has no disk" : `there are: ${removable.join(", ")}`;
    throw new ControlError(
      `${lane === undefined ? `there is no device "${name}"` : `${name} is no disk that could be taken out`}; ${there}`,
    );
  }
  try {
    return { said: await lane.host(signal, (hosted) => device.eject?.(hosted) ?? Promise.resolve("")) };
  } catch (error) {
    throw withDevice(name, error);
  }
}

function handsOf(engine: Engine): Hands {
  return {
    lanes: engine.lanes,
    installation: engine.names.installation,
    among: engine.names.installation,
    sending: (device) =>
      engine.journal.get<{ n: number }>("SELECT COUNT(*) AS n FROM deliveries WHERE state = 'active' AND target = ?", device)?.n ?? 0,
    notes: { dir: notesIn(engine.config.stateDir) },
    copy: (size, bytes, signal) => holdCopy(engine, size, bytes, signal),
    work$: engine.work$.pipe(filter(() => !engine.journal.failed)),
  };
}
