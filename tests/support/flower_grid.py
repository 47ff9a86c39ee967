"""Flower's Grid without a network: real messages, in the bytes that would be sent, to sites of this process."""

from __future__ import annotations

from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from kafal_pipeline.sites.over_flower.client_app import answered


class LocalGrid(Grid):
    """Delivers messages when their replies are asked for; keeps a record of all traffic."""

    def __init__(self, services, spoil=lambda name, reply: reply):
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
        self.services = {number + 10: service for number, service in enumerate(services)}
        self.spoil, self.traffic, self._waiting = spoil, [], {}

    def set_run(self, run):
        raise NotImplementedError

    run = property(lambda self: None)
    create_message = None

    def get_node_ids(self):
        return list(self.services)

    def get_nodes(self):
        return [NodeInfo(node_id=number, name=service.site.name) for number, service in self.services.items()]

    def push_messages(self, messages):
        for message in messages:
            sent = self._sent(message)
            message.metadata.__dict__["_message_id"] = sent.metadata.__dict__["_message_id"] = message.object_id
            self._waiting[message.object_id] = sent
            yield message.object_id

    def pull_messages(self, message_ids):
        for number in message_ids:
            message = self._waiting.pop(number, None)
            if message is None:
                continue
            service = self.services[message.metadata.dst_node_id]
            reply = self.spoil(service.site.name, answered(message, service))
            if reply is not None:
                yield self._sent(reply)

    def send_and_receive(self, messages, *, timeout=None):
        return list(self.pull_messages(self.push_messages(messages)))

    def _sent(self, message):
        contents = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
        self.traffic.append((message.metadata.message_type, message, contents))
        return inflate_object_from_contents(message.object_id, contents)
