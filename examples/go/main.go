// A backend in Go: it answers what clients emit, publishes, and reads presence.
//
//	NATS_URL=nats://127.0.0.1:4222 go run .
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Up is what a client emitted.
type Up struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
	User  struct {
		ID     *string        `json:"id"`
		Claims map[string]any `json:"claims"`
	} `json:"user"`
	SID       string `json:"sid"`
	Namespace string `json:"namespace"`
}

// Presence is who is in a room.
type Presence struct {
	Count   int `json:"count"`
	Members []struct {
		UserID *string `json:"userId"`
		SID    string  `json:"sid"`
	} `json:"members"`
}

type backend struct {
	nats    *nats.Conn
	streams jetstream.JetStream
}

// token writes a room, a user or an event as one token of a subject.
func token(name string) string {
	var out strings.Builder
	for _, b := range []byte(name) {
		if b <= ' ' || b >= 0x7f || strings.IndexByte(".*>%", b) >= 0 {
			fmt.Fprintf(&out, "%%%02X", b)
		} else {
			out.WriteByte(b)
		}
	}
	return out.String()
}

// publish publishes a durable event; it is safe to do again with the same id.
func (b *backend) publish(ctx context.Context, room, event string, data any, id string) error {
	body, err := json.Marshal(map[string]any{"event": event, "data": data, "id": id})
	if err != nil {
		return err
	}
	_, err = b.streams.Publish(ctx, "rt.pub.main."+token(room), body)
	return err
}

// presence returns who is in a room.
func (b *backend) presence(ctx context.Context, room string) (Presence, error) {
	var presence Presence
	reply, err := b.nats.RequestWithContext(ctx, "rt.presence.main."+token(room), nil)
	if err != nil {
		return presence, err
	}
	return presence, json.Unmarshal(reply.Data, &presence)
}

// answer answers an event; of several processes in the group one gets it, and the reply is the acknowledgement.
func (b *backend) answer(event string, handle func(context.Context, Up) (any, error)) error {
	_, err := b.nats.QueueSubscribe("rt.up.main."+token(event), "notifications", func(message *nats.Msg) {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			var up Up
			err := json.Unmarshal(message.Data, &up)
			var answer any
			if err == nil {
				answer, err = handle(ctx, up)
			}
			if err != nil {
				log.Printf("%s: %v", event, err)
				answer = map[string]any{"error": map[string]string{"code": "failed", "message": "try again"}}
			}
			body, err := json.Marshal(answer)
			if err == nil && message.Reply != "" {
				err = message.Respond(body)
			}
			if err != nil {
				log.Printf("%s: %v", event, err)
			}
		}()
	})
	return err
}

func (b *backend) markRead(ctx context.Context, up Up) (any, error) {
	var data struct {
		NotificationID string `json:"notificationId"`
	}
	if err := json.Unmarshal(up.Data, &data); err != nil {
		return nil, err
	}
	if up.User.ID == nil {
		return nil, fmt.Errorf("nobody reads anonymously")
	}
	// Every device of the user is told, also one that is away for a moment.
	id := fmt.Sprintf("read-%s-%s", *up.User.ID, data.NotificationID)
	if err := b.publish(ctx, "user:"+*up.User.ID, "notification:read", up.Data, id); err != nil {
		return nil, err
	}
	return map[string]any{"success": true, "notificationId": data.NotificationID}, nil
}

func (b *backend) who(ctx context.Context, up Up) (any, error) {
	var data struct {
		Room string `json:"room"`
	}
	if err := json.Unmarshal(up.Data, &data); err != nil {
		return nil, err
	}
	presence, err := b.presence(ctx, data.Room)
	if err != nil {
		return nil, err
	}
	users := []*string{}
	for _, member := range presence.Members {
		users = append(users, member.UserID)
	}
	return map[string]any{"count": presence.Count, "users": users}, nil
}

func run() error {
	url := os.Getenv("NATS_URL")
	if url == "" {
		url = nats.DefaultURL
	}
	conn, err := nats.Connect(url)
	if err != nil {
		return err
	}
	streams, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	b := &backend{nats: conn, streams: streams}
	if err := b.answer("notification:mark_read", b.markRead); err != nil {
		return err
	}
	if err := b.answer("who", b.who); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	fmt.Println("ready")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
	return conn.Drain()
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
